"""``neurodeploy convert``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.verb import Options, verb, write_resolved
from neurodeploy.compile_options import DEFAULT
from neurodeploy.conversion.convert import REPORT_FILE, check_images, convert
from neurodeploy.conversion.images import Coding, EncodedImages, Images, load_images
from neurodeploy.conversion.latency import LatencyCurve, latency_curve
from neurodeploy.conversion.picture import curve_picture
from neurodeploy.deployment import GRAPH_FILE, compile_with
from neurodeploy.errors import ConfigError, ConstraintError, MappingError, QuantizeError
from neurodeploy.files import write_json, write_text
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.load import load
from neurodeploy.graph.nodes import Conv2d, Linear
from neurodeploy.target import load_target

CURVE_FILE = "convert.svg"


class ConvertOptions(Options):
    """Options of ``neurodeploy convert``."""

    model: Path = Field(description="the trained ANN, .onnx.")
    images: Path = Field(description="training images: .npz with images and labels, or an IDX file (MNIST).")
    labels: Path | None = Field(None, description="the IDX file of their labels.")
    test_images: Path | None = Field(
        None, description="images to judge by, as --images; without them, no accuracy on the chip."
    )
    test_labels: Path | None = Field(None, description="the IDX file of their labels.")
    out: Path = Field(Path("build"), description="folder to write to.", json_schema_extra={"short": "-o"})
    target: str = Field(
        "speck2f",
        description="name of the chip (see 'neurodeploy targets'), or the path of a chip.yaml.",
        json_schema_extra={"short": "-t"},
    )
    max_pool: Literal["refuse", "average"] = Field("refuse", description="read MaxPool as average pooling, or refuse.")
    fine_tune: int = Field(0, ge=0, description="epochs to train the ANN on, on the training images.")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of --fine-tune.")
    drop_bias: bool = Field(False, description="remove all biases before --fine-tune.")
    calibrate: int = Field(64, gt=0, description="how many training images the weights are balanced on.")
    balance: Literal["max", "percentile", "rates"] = Field(
        "percentile",
        description="activation that becomes full rate: the largest, --percentile, or that corrected by spike counts.",
    )
    percentile: float = Field(99.9, gt=0, le=100, description="for --balance: percentile of the activations.")
    per: Literal["layer", "channel"] = Field("layer", description="one scale per layer or channel.")
    input_scale: float = Field(1.0, gt=0, description="what the ANN took for brightness 1: 255 if trained on bytes.")
    initial_v: float = Field(0.0, ge=0, lt=1, description="initial potential as a share of the threshold.")
    code: Literal["rate", "latency"] = Field("rate", description="how images become events.")
    duration_us: int = Field(100_000, gt=0, description="how long an image is shown, microseconds.")
    dt_us: int = Field(1000, gt=0, description="time step in microseconds.")
    max_rate_hz: float = Field(500.0, gt=0, description="events per second of a pixel of brightness 1.")
    samples: int | None = Field(None, gt=0, description="use only the first so many test images.")
    threads: int = Field(1, gt=0, description="threads of the event-driven runs.")


@verb(ConvertOptions)
def command(options: ConvertOptions) -> dict[str, Any]:
    """Convert a trained ANN into a spiking network for a chip, and report how well its spikes follow the ANN.

    Writes the graph (what compile takes), convert.json and, with test images, convert.svg: accuracy on the emulated
    chip over latency and SynOps.
    """
    if options.drop_bias and not options.fine_tune:
        raise ConfigError(
            "--drop-bias without --fine-tune would change what the network computes and leave it so.",
            remedy="add --fine-tune 1.",
            code="drop-bias",
        )
    training = load_images(options.images, options.labels)
    graph = load(options.model, **({"max_pool": options.max_pool} if options.model.suffix == ".onnx" else {}))
    check_images(graph, training)
    test = None
    if options.test_images is not None:
        test = load_images(options.test_images, options.test_labels)[: options.samples]
        check_images(graph, test)
        load_target(options.target)
    if options.fine_tune:
        graph = _trained_on(graph, training, options)
    coding = Coding(options.code, options.duration_us, options.dt_us, options.max_rate_hz)
    result = convert(
        graph,
        training[: options.calibrate],
        coding=coding,
        balance=options.balance,
        percentile=options.percentile,
        per=options.per,
        input_scale=options.input_scale,
        initial_v=options.initial_v,
    )
    biased = any(isinstance(node, Conv2d | Linear) and node.bias is not None for node in result.graph.nodes.values())
    clock_hz = 1e6 / options.dt_us if biased else None
    (options.out / CURVE_FILE).unlink(missing_ok=True)  # it may be that of an earlier conversion
    curve = None if test is None else _curve(result.graph, graph, test, coding, clock_hz, options)
    report = {**result.to_dict(), "chip": curve, "slow_clock_hz": clock_hz}
    save_graph(result.graph, options.out / GRAPH_FILE)
    write_json(options.out / REPORT_FILE, report)
    write_resolved(options, options.out / "convert.yaml")
    columns = ("layer", "scale", "activation", "rate expected", "rate", "error", "silent")
    rows = [
        (
            row.layer,
            row.scale_max,
            row.activation,
            row.rate_expected,
            row.rate,
            f"{row.error[-1]:.1%}",
            f"{row.silent:.1%}",
        )
        for row in result.layers
    ]
    table(f"Spikes beside activations: {result.images} training images, {result.steps[-1]} time steps", columns, rows)
    for step, accuracy, agreement in zip(result.steps, result.accuracy, result.agreement, strict=True):
        say(f"after {step} time steps: accuracy {accuracy:.1%}, {agreement:.1%} as the ANN ({result.accuracy_ann:.1%})")
    for note in result.graph.notes:
        say(f"note: {note}")
    say(f"wrote {options.out / GRAPH_FILE}" + (f", {REPORT_FILE} and {CURVE_FILE}" if curve else f" and {REPORT_FILE}"))
    if clock_hz is not None:
        say(f"the biases act once per time step if emulate and validate get --slow-clock-hz {clock_hz:g}")
    return report


def _trained_on(graph: Graph, images: Images, options: ConvertOptions) -> Graph:
    from neurodeploy.conversion.torch_ann import fine_tune

    with progress("training on") as advance:
        return fine_tune(
            graph,
            images,
            epochs=options.fine_tune,
            learning_rate=options.learning_rate,
            input_scale=options.input_scale,
            bias=not options.drop_bias,
            progress=advance,
        )


def _curve(
    spiking: Graph, ann: Graph, test: Images, coding: Coding, clock_hz: float | None, options: ConvertOptions
) -> dict[str, Any] | None:
    """The test images on the emulated chip; None where the network does not fit it."""
    from neurodeploy.conversion.torch_ann import answers

    try:
        deployment = compile_with(spiking, load_target(options.target), DEFAULT)
    except (QuantizeError, ConstraintError, MappingError) as error:
        say(f"the network does not fit {options.target}: {error}")
        return None
    latencies = sorted({max(options.dt_us, round(options.duration_us / 2**k)) for k in range(5)})
    with progress("images on the emulated chip") as advance:
        curve = latency_curve(
            deployment,
            EncodedImages(test, coding),
            latencies,
            threads=options.threads,
            slow_clock_hz=clock_hz,
            progress=advance,
        )
    accuracy_ann = float((answers(ann, test, input_scale=options.input_scale) == test.labels).mean())
    _say_curve(curve, accuracy_ann)
    write_text(options.out / CURVE_FILE, curve_picture(curve, accuracy_ann))
    return {**curve.to_dict(), "accuracy_ann": accuracy_ann}


def _say_curve(curve: LatencyCurve, accuracy_ann: float) -> None:
    table(
        f"{curve.images} test images on the emulated {curve.target} (ANN: {accuracy_ann:.2%})",
        ("latency (ms)", "accuracy", "SynOps per image", "spikes per image"),
        [
            (point.latency_us / 1000, f"{point.accuracy:.2%}", f"{point.synops:,.0f}", f"{point.spikes:,.0f}")
            for point in curve.points
        ],
    )
