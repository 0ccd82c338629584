"""``report.html``: one self-contained page about a run folder. Needs no torch and no vendor software."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

import neurodeploy
from neurodeploy import deployment as stage
from neurodeploy.deployment import Deployment
from neurodeploy.errors import ProgramError
from neurodeploy.events.dataset import read_npz
from neurodeploy.files import read_json, write_text
from neurodeploy.program_file import program_hash
from neurodeploy.report import charts
from neurodeploy.report.load import load_section
from neurodeploy.report.png import data_uri, raster_picture
from neurodeploy.report.robustness import robustness_section
from neurodeploy.report.sweep import sweep_section
from neurodeploy.target import Program
from neurodeploy.validation.divergence import Divergence
from neurodeploy.validation.validate import DESCRIPTIONS

RASTER_SIZE = (110, 490)  # shown at twice the width, so that a single spike can be seen


def write_report(folder: str | Path) -> Path:
    """Write ``folder/report.html`` from the files of a compiled (and, if it was, validated) run folder.

    Raises:
        ConfigError: the folder holds no compiled network, or cannot be written to.
        EventError, GraphError, ProgramError: one of its files is damaged, or of another network than the program.
    """
    folder = Path(folder)
    deployment = stage.open_deployment(folder)
    environment = Environment(
        loader=PackageLoader("neurodeploy.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        title=f"{folder.resolve().name} on {deployment.target}",
        target=deployment.target,
        version=neurodeploy.__version__,
        program_hash=program_hash(deployment.program),
        layers=deployment.program.layers,
        notes=deployment.notes,
        network_svg=Markup(_network(deployment)),
        cores=_cores(deployment),
        quantization=_quantization(deployment),
        **_validation(folder, deployment.program),
        **_sample(folder, deployment),
        sweep=_sweep(folder),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _network(deployment: Deployment) -> str:
    events = "events"
    while events in deployment.layers:  # a layer may have any name
        events += " "
    shape = deployment.program.input_shape
    boxes = {events: [f"{shape[0]} channels", f"{shape[1]} x {shape[2]} pixels"]}
    entered = {name for entry in deployment.mapping["inputs"] for name in entry["layers"]}
    arrows = []
    for layer in deployment.mapping["layers"]:
        name, core = layer["name"], deployment.layers[layer["name"]]
        c, h, w = core.output_shape
        lines = [f"{c} x {h} x {w} neurons", f"kernel {core.kernel_size}, stride {core.stride[0]}"]
        boxes[name] = [*lines, f"core {core.core}"]
        if name in entered:
            arrows.append((events, name))
        arrows += [(name, end["layer"]) for end in layer["destinations"]]
    return charts.network(boxes, arrows)


def _cores(deployment: Deployment) -> list[dict[str, Any]]:
    mapping = deployment.mapping
    by_core = {layer["core"]: layer for layer in mapping["layers"]}
    rows = []
    for core in mapping["cores"]:
        layer = by_core.get(core["core"])
        needs = layer["needs"] if layer else {"kernel": 0, "neuron": 0, "bias": 0}
        row: dict[str, Any] = {"core": core["core"], "layer": layer["name"] if layer else None}
        for kind in ("kernel", "neuron", "bias"):
            row[kind] = f"{needs[kind]:,} of {core['capacities'][kind]:,}"
        for kind in ("kernel", "neuron"):
            row[f"{kind}_svg"] = Markup(charts.meter(needs[kind], core["capacities"][kind]))
        rows.append(row)
    return rows


def _quantization(deployment: Deployment) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "scale": f"{layer.scale:.4g} ({layer.limited_by})",
            "threshold": str(layer.threshold_integer),
            "v_min": str(layer.v_min_integer),
            "weights": f"{layer.weight_min} .. {layer.weight_max}",
            "rounding": f"{layer.weight_error_lsb:.2f} LSB",
            "zeroed": f"{layer.zeroed_weights:.1%}",
        }
        for name, layer in deployment.quantized.layers.items()
    ]


@contextmanager
def _result_of(verb: str, path: Path) -> Iterator[None]:
    """Words an error in the content of ``path``, which ``verb`` wrote."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ProgramError(
            f"{path}: not what neurodeploy {verb} writes ({error!r}).",
            remedy=f"run neurodeploy {verb} again, or delete the file.",
            code=f"{verb}-file",
        ) from error


def _check_program(path: Path, validated: str, program: Program) -> None:
    if validated != program_hash(program):
        raise ProgramError(
            f"{path}: is of another program than the one in {path.parent}: it was validated before the network was "
            "compiled again.",
            remedy=f"run neurodeploy validate {path.parent} again, or delete the file.",
            code="stale-validation",
        )


def _validation(folder: Path, program: Program) -> dict[str, Any]:
    path = folder / "validation.json"
    if not path.is_file():
        return {"validation": None}
    result = read_json(path)
    with _result_of("validate", path):
        _check_program(path, result["program_sha256"], program)
        return _tables(result, program.layers)


def _tables(result: dict[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    known = [name for name in DESCRIPTIONS if name in result["runs"]]
    runs = {name: result["runs"][name] for name in [*known, *sorted(set(result["runs"]) - set(known))]}
    event_driven = runs["event_driven"]
    counters = event_driven["counters"]
    synops = {name: counters[name]["synops"] / result["recordings"] for name in layers}
    loss = [("accuracy of the float network", runs["float"]["accuracy"])] if "float" in runs else []
    figures = [("accuracy, event by event", event_driven["accuracy"]), *loss]
    return {
        "validation": result,
        "figures": [
            *({"label": label, "value": f"{value:.1%}"} for label, value in figures),
            {"label": "recordings", "value": f"{result['recordings']:,}"},
            {"label": "SynOps per recording", "value": f"{sum(synops.values()):,.0f}"},
        ],
        "runs": [
            {
                "name": name,
                "accuracy": f"{run['accuracy']:.1%}",
                "correct": f"{run['correct']} of {result['recordings']}",
                "agreement": f"{run['agreement_with_event_driven']:.1%}",
                "description": run["description"],
            }
            for name, run in runs.items()
        ],
        "why": _why(result),
        "orders": robustness_section(result["order_robustness"], layers),
        "imperfect": robustness_section(result["monte_carlo"], layers),
        "run_names": list(runs),
        "activity": [
            {
                "layer": name,
                "neurons": f"{event_driven['layers'][name]['neurons']:,}",
                "means": [f"{run['layers'][name]['mean_spikes']:.3g}" for run in runs.values()],
                "silent": f"{event_driven['layers'][name]['silent']:.1%}",
                "synops": f"{synops[name]:,.0f}",
                "dropped": f"{counters[name]['dropped']:,}",
            }
            for name in layers
        ],
        "histograms": [
            {
                "layer": name,
                "svg": Markup(_histogram(event_driven["layers"][name]["histogram"], result["histogram_edges"])),
            }
            for name in layers
        ],
    }


def _why(result: dict[str, Any]) -> dict[str, Any] | None:
    gap = result["waterfall"]
    if gap is None:
        return None
    bars, n = gap["bars"], result["recordings"]
    changes = [(bar["cause"], (bar["correct_after"] - bar["correct_before"]) / n) for bar in bars]
    divergence = result["first_divergence"]
    return {
        "svg": Markup(charts.waterfall(bars[0]["correct_before"] / n, changes, names=("float", "event_driven"))),
        "bars": [{**bar, "points": f"{bar['points']:+.4g}"} for bar in bars],
        "v_min": f"{gap['points']['v_min']:+.4g}",
        "recording": result["divergent_recording"],
        "divergence": None if divergence is None else str(Divergence.from_dict(divergence)),
    }


def _histogram(counts: list[int], edges: list[int]) -> str:
    labels = [str(edges[0])]
    for low, high in pairwise(edges):
        labels.append(str(high) if high - low == 1 else f"-{high}")
    labels.append(f">{edges[-1]}")
    total = max(sum(counts), 1)
    last = max((index for index, count in enumerate(counts) if count), default=0)
    return charts.bars([count / total for count in counts[: last + 1]], labels[: last + 1])


def _sweep(folder: Path) -> dict[str, Any] | None:
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    with _result_of("sweep", path):
        return sweep_section(read_json(path))


def _sample(folder: Path, deployment: Deployment) -> dict[str, Any]:
    path = folder / "sample.npz"
    if not path.is_file():
        return {"raster": None, "load": None}
    sample = read_npz(path)
    with _result_of("validate", path):
        _check_program(path, str(sample["program_sha256"]), deployment.program)
        return {"raster": _bands(sample), "load": load_section(deployment, sample)}


def _bands(sample: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    start, end = int(sample["t"].min(initial=0)), int(sample["t"].max(initial=0)) + 1

    def band(name: str, t: NDArray[Any], row: NDArray[Any], rows: int) -> dict[str, Any]:
        picture = raster_picture(t, row, rows, t_start_us=start, t_end_us=end, size=RASTER_SIZE)
        return {"name": name, "spikes": f"{len(t):,}", "picture": data_uri(picture)}

    def line(c: NDArray[Any], y: NDArray[Any], x: NDArray[Any], shape: NDArray[Any]) -> NDArray[np.int64]:
        _, height, width = (int(size) for size in shape)
        rows: NDArray[np.int64] = (c.astype(np.int64) * height + y) * width + x
        return rows

    shape = sample["input_shape"]
    bands = [band("input", sample["t"], line(sample["p"], sample["y"], sample["x"], shape), int(shape.prod()))]
    for index, (name, shape) in enumerate(zip(sample["layers"], sample["shapes"], strict=True)):
        own = sample["layer"] == index
        row = line(sample["c"][own], sample["spike_y"][own], sample["spike_x"][own], shape)
        bands.append(band(str(name), sample["spike_t"][own], row, int(shape.prod())))
    return {
        "index": int(sample["index"]),
        "label": int(sample["label"]),
        "answer": int(sample["answer"]),
        "duration_ms": round((end - start) / 1000),
        "bands": bands,
    }
