"""The page of ``gpu.py``."""

from typing import Any


def page(result: dict[str, Any]) -> str:
    """The Markdown report."""
    info = result["machine"]
    lines = [
        "# Training kernels on a GPU",
        "",
        f"Device: **{result['device']}**; a copy on it moves {result['copy_gb_per_s']:.0f} GB/s (read and written).",
        "LIF neurons (one spike per step, soft reset), forward + backward; medians between device events, made by",
        "`python benchmarks/gpu.py" + (" --quick`." if result["quick"] else "`."),
        "",
        f"Commit {info['commit']}; {info['cpu']}; Python {info['python']}, "
        + ", ".join(f"{name} {version}" for name, version in info["versions"].items())
        + ".",
        "",
    ]
    for case in result["layers"]:
        lines += [
            f"## Neurons {case['shape']}, {case['dtype']} ({case['steps'] / 1e6:.3g} million neuron-steps)",
            "",
            "| contender | ms | forward ms | x ours | GB/s | of copy | spikes that differ | gradient L2 |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for name, row in sorted(case["rows"].items(), key=lambda item: item[1]["median_ms"]):
            cells = [
                f"{row['median_ms']:.3f}",
                number(row["forward_ms"], ".3f"),
                f"{row['ratio']:.2f}",
                number(row.get("gb_per_s"), ".0f"),
                number(row.get("of_copy"), ".0%"),
                number(row.get("spikes_differ"), ".1e"),
                number(row.get("gradient_l2"), ".1e"),
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines += ["", *(f"Left out: {name} ({why})." for name, why in case["missing"].items()), ""]
    kinds = result["kinds"]
    lines += [
        f"## Kinds of neurons {kinds['shape']}, float32",
        "",
        "| kind | ms | repeats bit for bit |",
        "| --- | ---: | --- |",
    ]
    lines += [f"| {n} | {r['median_ms']:.3f} | {'yes' if r['repeats'] else 'NO'} |" for n, r in kinds["rows"].items()]
    linear = result["linear"]
    lines += [
        "",
        f"## Linear + LIF {linear['shape']}",
        "",
        "| type | product ms | with neurons ms | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {n} | {r['product']:.2f} | {r['with neurons']:.2f} | {r['ratio']:.3f} |" for n, r in linear["rows"].items()
    ]
    events = result["events"]
    lines += [
        "",
        f"## Spike times, batch, inputs, neurons {events['shape']}",
        "",
        "| device | ms | spikes |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {n} | {r['median_ms']:.3f} | {r['spikes']} |" for n, r in events["rows"].items()]
    training = result["training"]
    lines += ["", "## The demo network, end to end", ""]
    if training["rows"]:
        lines += ["| device | s per epoch | test accuracy after 2 epochs |", "| --- | ---: | ---: |"]
        lines += [f"| {n} | {r['epoch_s']:.2f} | {r['test_accuracy']:.1%} |" for n, r in training["rows"].items()]
    else:
        lines.append(f"Left out: {training['missing']}.")
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
