"""``neurodeploy validate``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

import neurodeploy as nd
from neurodeploy.cli.output import progress, say, table
from neurodeploy.cli.verb import Options, verb, write_resolved
from neurodeploy.deployment import open_deployment
from neurodeploy.errors import CheckFailed, ConfigError
from neurodeploy.events.dataset import EventDataset, load_npz
from neurodeploy.validation.robustness import Robustness
from neurodeploy.validation.sample import write_sample
from neurodeploy.validation.validate import RunName, Validation, describe, validate
from neurodeploy.validation.waterfall import BARS


class ValidateOptions(Options):
    """Options of ``neurodeploy validate``."""

    run: Path = Field(description="a folder written by 'neurodeploy compile'.")
    data: Path = Field(description="labelled recordings, .npz.")
    dt_us: int = Field(1000, gt=0, description="length of a time step of the time-stepped runs, in microseconds.")
    samples: int | None = Field(None, gt=0, description="use only the first so many recordings.")
    runs: tuple[RunName, ...] = Field(
        ("float", "quantized", "time_stepped", "event_driven"), description="which runs to make; may be repeated."
    )
    v_min: tuple[str, ...] = Field(
        (),
        description="also run event-driven with this v_min ('-threshold', 'lowest', a number), compiled with the same "
        "options otherwise; may be repeated.",
    )
    no_explain: bool = Field(
        False, description="with the float run: do not split the accuracy gap by cause nor find the first divergence."
    )
    threads: int = Field(1, gt=0, description="threads of the event-driven runs.")
    slow_clock_hz: float | None = Field(
        None, gt=0, description="ticks per second of the slow clock, for networks with biases."
    )
    orders: int = Field(
        0, ge=0, description="also run event-driven in so many other legal orders of delivery and compare the answers."
    )
    chips: int = Field(
        20, gt=0, description="imperfect chips to run, with --lost-events or --random-initial-state (Monte-Carlo)."
    )
    lost_events: float = Field(
        0.0, ge=0, le=1, description="probability with which an event that reaches a core is lost."
    )
    random_initial_state: bool = Field(False, description="every neuron starts at a random potential.")
    seed: int = Field(0, ge=0, lt=2**62, description="of the random orders and the imperfect chips.")
    min_accuracy: float | None = Field(
        None, ge=0, le=1, description="exit with code 1 if the event-driven accuracy is lower."
    )
    max_loss: float | None = Field(
        None, ge=0, le=1, description="exit with code 1 if event-driven is less accurate than float by more than this."
    )


@verb(ValidateOptions)
def command(options: ValidateOptions) -> dict[str, Any]:
    """Compare the float, quantized, time-stepped and event-driven network on labelled recordings.

    Writes validation.json, per_sample.csv and sample.npz (one recording's spikes, for the report) into the run folder.
    """
    if options.max_loss is not None and "float" not in options.runs:
        raise ConfigError(
            f"max_loss is {options.max_loss:g}, and the float run it compares with is not among the runs "
            f"({', '.join(options.runs)}).",
            remedy="add --runs float, or leave --max-loss out.",
            code="max-loss",
        )
    deployment = open_deployment(options.run)
    dataset = load_npz(options.data, sensor_size=deployment.program.input_shape)[: options.samples]
    variants = {f"v_min={v_min}": deployment.recompile(v_min=v_min) for v_min in options.v_min}
    with progress("validating") as advance:
        result = validate(
            deployment,
            dataset,
            dt_us=options.dt_us,
            runs=options.runs,
            variants=variants,
            explain=not options.no_explain,
            threads=options.threads,
            slow_clock_hz=options.slow_clock_hz,
            progress=advance,
        )
    orders, imperfect = _robustness(options, deployment, dataset)
    result = replace(result, order_robustness=orders, monte_carlo=imperfect)
    result.save(options.run)
    write_sample(options.run, deployment, dataset, slow_clock_hz=options.slow_clock_hz)
    write_resolved(options, options.run / "validate.yaml")
    accuracy, agreement = result.accuracy, result.agreement
    table(
        f"{len(dataset)} recordings",
        ("run", "accuracy", "agrees with event_driven", "seconds", "what is executed"),
        [
            (name, f"{accuracy[name]:.1%}", f"{agreement[name]:.1%}", run.seconds, describe(name))
            for name, run in result.runs.items()
        ],
    )
    _say_why(result)
    _say_robustness("Other orders of delivery", result.order_robustness)
    _say_robustness("Imperfect chips", result.monte_carlo)
    say(f"wrote {options.run / 'validation.json'}")
    content = result.to_dict()
    _check(options, accuracy, content)
    return content


def _robustness(
    options: ValidateOptions, deployment: nd.Deployment, dataset: EventDataset
) -> tuple[Robustness | None, Robustness | None]:
    shared: dict[str, Any] = {"seed": options.seed, "threads": options.threads, "slow_clock_hz": options.slow_clock_hz}
    orders, imperfect = None, None
    if options.orders:
        with progress("other orders") as advance:
            orders = nd.order_robustness(deployment, dataset, orders=options.orders, progress=advance, **shared)
    if options.lost_events or options.random_initial_state:
        with progress("imperfect chips") as advance:
            imperfect = nd.monte_carlo(
                deployment,
                dataset,
                chips=options.chips,
                initial_state=options.random_initial_state,
                lost_events=options.lost_events,
                progress=advance,
                **shared,
            )
    return orders, imperfect


def _say_robustness(title: str, found: Robustness | None) -> None:
    if found is None:
        return
    accuracy = found.accuracy
    changed = int(np.count_nonzero(found.changed))
    table(
        f"{title}: {changed} of {len(found.labels)} recordings change their answer at least once "
        f"({found.answers_changed:.2%} of all answers); default {accuracy['default']:.1%}",
        ("run", "accuracy", "answers changed", "spikes changed, by layer"),
        [
            (
                name,
                f"{accuracy[name]:.1%}",
                int(np.sum(trial.predictions != found.reference)),
                ", ".join(f"{layer}: {share:.2%}" for layer, share in trial.spikes_changed.items()),
            )
            for name, trial in found.trials.items()
        ],
    )


def _say_why(result: Validation) -> None:
    if result.waterfall is not None:
        bars = result.waterfall.bars
        gap = 100 * (bars[-1].correct_after - bars[0].correct_before) / len(result.labels)
        table(
            f"Why: {gap:+.4g} points from float to event_driven",
            ("cause", "points", "became right", "became wrong", "what changes"),
            [(bar.cause, f"{bar.points:+.4g}", bar.gained, bar.lost, BARS[bar.cause]) for bar in bars],
        )
    if result.first_divergence is not None:
        say(f"first difference of float and event_driven in recording {result.divergent_recording}:")
        say(f"  {result.first_divergence}")


def _check(options: ValidateOptions, accuracy: dict[str, float], result: dict[str, Any]) -> None:
    reached = accuracy["event_driven"]
    if options.min_accuracy is not None and reached < options.min_accuracy:
        raise CheckFailed(
            f"event-driven accuracy {reached:.1%} is below --min-accuracy {options.min_accuracy:.1%}.",
            remedy="see the rows of the table for the step that loses it.",
            code="accuracy",
            result=result,
        )
    if options.max_loss is not None and accuracy["float"] - reached > options.max_loss:
        raise CheckFailed(
            f"event-driven accuracy {reached:.1%} is {accuracy['float'] - reached:.1%} below float "
            f"({accuracy['float']:.1%}); --max-loss allows {options.max_loss:.1%}.",
            remedy="see the rows of the table for the step that loses it.",
            code="accuracy-loss",
            result=result,
        )
