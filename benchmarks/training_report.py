"""The page and the picture of ``training_cpu.py``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def page(result: Row, drawn: bool) -> str:
    """Return the Markdown report of a run."""
    info = result["threads"][0]["machine"]
    lines = [
        "# Training on the CPU",
        "",
        "LIF neurons (one spike per step, soft reset, decay exp(-1/20)), float32, forward + backward; medians of",
        "interleaved runs, made by `python benchmarks/training_cpu.py" + (" --quick`." if result["quick"] else "`."),
        "",
        f"Commit {info['commit']}; {info['cpu']}, {info['cores']} cores; Python {info['python']}, "
        + ", ".join(f"{name} {version}" for name, version in info["versions"].items())
        + ".",
        "Load average before and after: "
        + "; ".join(
            f"{part['threads']} thread{'s' if part['threads'] > 1 else ''}: {part['load_before']:.1f}, "
            f"{part['load_after']:.1f}"
            for part in result["threads"]
        )
        + " (the threads of this benchmark alone would give their number; above that, other work shared the machine).",
        "",
        "Spikes and gradients are compared with a loop under autograd that defines the algorithm in question:",
        "spikes that differ (share of all), relative L2 distance and cosine of the gradients. A peer with a surrogate",
        "of its own is compared with the arctan. One spike that rounding moves changes the gradient of its neuron.",
        "Peak: growth of the process's resident memory in one call, after all allocators gave back what they kept.",
        "",
    ]
    if drawn:
        lines += ["![times as multiples of neurodeploy's](training_cpu.svg)", ""]
    for part in result["threads"]:
        for case in part["layers"]:
            lines += _layers(case, part["threads"])
        for case in part["networks"]:
            lines += _network(case, part["threads"])
        if "kinds" in part:
            lines += _kinds(part["kinds"])
        if "lengths" in part:
            lines += _lengths(part["lengths"])
    return "\n".join(lines).rstrip() + "\n"


def picture(result: Row, path: Path) -> bool:
    """Draw times as multiples of ours; return whether matplotlib was there to draw with."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("The picture needs matplotlib: pip install matplotlib")
        return False
    mpl.rcParams["svg.hashsalt"] = "neurodeploy"
    part = result["threads"][0]
    cases = [(f"neurons {case['shape']}", case["rows"], "neurodeploy exodus, store") for case in part["layers"]]
    cases += [(case["name"], case["rows"], "neurodeploy exodus") for case in part["networks"]]
    rows_of_plots = -(-len(cases) // 2)
    figure = Figure(figsize=(13, 3.6 * rows_of_plots), layout="constrained")
    places = figure.subplots(rows_of_plots, 2, squeeze=False).ravel()
    for empty in places[len(cases) :]:
        empty.set_axis_off()
    for axes, (title, rows, base) in zip(places, cases, strict=False):
        ordered = sorted(rows.items(), key=lambda item: -item[1]["median_ms"])
        ratios = [row["median_ms"] / rows[base]["median_ms"] for _, row in ordered]
        colours = ["tab:blue" if "neurodeploy" in name else "tab:gray" for name, _ in ordered]
        bars = axes.barh([name for name, _ in ordered], ratios, color=colours)
        axes.bar_label(bars, [f"{ratio:.3g}" for ratio in ratios], padding=2, fontsize=8)
        axes.set(title=title, xscale="log", xlabel="time / neurodeploy's")
        axes.set_xlim(0.5, 1.5 * max(ratios))
        axes.xaxis.set_minor_formatter("")
        axes.tick_params(labelsize=8)
    threads = part["threads"]
    figure.suptitle(f"forward + backward, {threads} thread{'s' if threads > 1 else ''}")
    figure.savefig(path, metadata={"Date": None})
    return True


def _layers(case: Row, threads: int) -> list[str]:
    batch, steps, neurons = case["shape"]
    elements = batch * steps * neurons
    lines = [
        f"## Neuron layer [B, T, N] = [{batch}, {steps}, {neurons}], {_threads(threads)}",
        "",
        f"{4e-6 * elements:.0f} MB per array; {case['spike_rate']:.3f} spikes per neuron and step; a copy of one array "
        f"takes {case['copy_ms']:.2f} ms = {case['copy_gb_per_s']:.1f} GB/s (read + write): at that rate 24 bytes per "
        f"neuron and step take {24 * elements / case['copy_gb_per_s'] / 1e6:.1f} ms, 20 bytes "
        f"{20 * elements / case['copy_gb_per_s'] / 1e6:.1f} ms.",
        "",
        "| | forward ms | backward ms | total ms | min | runs | times ours | bytes | of copy | peak MiB | "
        "spikes differ | gradient L2 | cosine |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in case["rows"].items():
        lines.append(
            _row(
                name,
                _times(row),
                f"{row['ratio']:.1f}",
                f"{row['bytes_per_step']:g}" if "bytes_per_step" in row else "",
                f"{row['of_copy']:.0%}" if "of_copy" in row else "",
                _memory(row),
                _checks(row),
            )
        )
    lines += _missing(case, 13)
    return lines


def _network(case: Row, threads: int) -> list[str]:
    lines = [
        f"## {case['name']}, {_threads(threads)}",
        "",
        f"Input {case['input']}; {case['spike_rate']:.3f} spikes per output and step. "
        "Checked: output spikes, gradient of the first weights.",
        "",
        "| | forward ms | backward ms | total ms | min | runs | times no neurons | peak MiB | spikes differ | "
        "gradient L2 | cosine |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in case["rows"].items():
        lines.append(_row(name, _times(row), f"{row['ratio_to_no_neurons']:.2f}", _memory(row), _checks(row)))
    lines += _missing(case, 11)
    return lines


def _kinds(case: Row) -> list[str]:
    lines = [
        f"## Kinds of neurons, {case['shape']}, one thread",
        "",
        "EXODUS, exponential surrogate, against sinabs. (sinabs' backward pass is quadratic in T.)",
        "",
        "| | forward ms | backward ms | total ms | min | runs | bytes | of copy | peak MiB | sinabs ms | times ours | "
        "sinabs peak MiB | spikes differ | gradient L2 | cosine |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in case["rows"].items():
        if name.startswith("sinabs "):
            continue
        other = case["rows"].get(f"sinabs {name}")
        lines.append(
            _row(
                name,
                _times(row),
                f"{row['bytes_per_step']:g}" if "bytes_per_step" in row else "",
                f"{row['of_copy']:.0%}" if "of_copy" in row else "",
                _memory(row),
                f"{other['median_ms']:.0f}" if other else "not installed",
                f"{row['sinabs_ratio']:.1f}" if other else "",
                _memory(other) if other else "",
                _checks(row),
            )
        )
    return [*lines, ""]


def _lengths(rows: Iterable[Row]) -> list[str]:
    lines = [
        "## Time is linear in T",
        "",
        "EXODUS, B = 4, N = 512, one thread; in brackets the ratio to half of T.",
        "",
        "| T | store ms | recompute ms |",
        "|---|---|---|",
    ]
    before: Row = {}
    for row in rows:
        cells = []
        for memory in ("store", "recompute"):
            ratio = f" ({row[memory] / before[memory]:.2f})" if before and row["T"] == 2 * before["T"] else ""
            cells.append(f"{row[memory]:.2f}{ratio}")
        lines.append(_row(str(row["T"]), *cells))
        before = row
    return [*lines, ""]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _times(row: Row) -> str:
    halves = [row["forward_ms"], row["backward_ms"]]
    shown = ["" if value is None else f"{value:.1f}" for value in halves]
    return " | ".join([*shown, f"{row['median_ms']:.1f}", f"{row['min_ms']:.1f}", str(row["runs"])])


def _memory(row: Row) -> str:
    return "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"


def _checks(row: Row) -> str:
    if "spikes_differ" not in row:
        return " | | "
    return f"{row['spikes_differ']:.1g} | {row['gradient_l2']:.1g} | {row['gradient_cosine']:.6f}"


def _missing(case: Row, columns: int) -> list[str]:
    return [f"| {name} | left out: {why}" + " |" * (columns - 1) for name, why in case["missing"].items()] + [""]


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"
