"""What cutting time does to gradients: truncated against exact, layer by layer.

    python benchmarks/local_bias.py            # writes benchmarks/results/local_bias.md and .json

Four layers of LIF neurons, the same loss (the mean of the segments' cross-entropies), once with gradients across the
segments' borders and once without; float64. Blocks are not cut: that would change the loss.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine

from neurodeploy import files, nn
from neurodeploy.kernels.local import LocalTraining
from neurodeploy.surrogate import SingleExponential

STEPS = 24
LENGTHS = (12, 8, 4, 2, 1)
DECAYS = (0.9, 0.5)
WIDTH, BATCH, LAYERS, SEEDS = 40, 16, 4, 10


def network(decay: float) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    tau = -1.0 / float(torch.log(torch.tensor(decay, dtype=torch.float64)))
    for _ in range(LAYERS):
        linear = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        # Mean and variance of the potential are those of decay 0.9 for any decay.
        mean, deviation = 3 * (1 - decay) / WIDTH, 2.75 * ((1 - decay**2) / WIDTH) ** 0.5
        torch.nn.init.normal_(linear.weight, mean, deviation)
        layers += [linear, nn.LIF(tau, norm_input=False, spikes="single", surrogate=SingleExponential(1.0))]
    return torch.nn.Sequential(*layers).double()


def gradients(net: torch.nn.Sequential) -> list[torch.Tensor]:
    return [one.grad.clone() for one in net.parameters() if one.grad is not None]


def compare(decay: float, length: int, seed: int) -> tuple[list[float], list[float]]:
    """Relative L2 error and cosine of each layer's weight gradient."""
    torch.manual_seed(seed)
    net = network(decay)
    x = (torch.rand(BATCH, STEPS, WIDTH, dtype=torch.float64) < 0.3).double()
    labels = torch.randint(WIDTH, (BATCH,))
    LocalTraining(
        net, x, truncation=length, update="accumulate", optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    ).step(x, labels)
    cut = gradients(net)
    net.zero_grad()
    output = net(x)
    rate = float(output.detach().mean())
    if not 0.01 < rate < 0.9:
        raise SystemExit(f"the last layer fires {rate:.3f} spikes per step: no network to compare gradients on")
    losses = [F.cross_entropy(part.mean(1), labels) * part.shape[1] / STEPS for part in output.split(length, 1)]
    torch.stack(losses).sum().backward()
    exact = gradients(net)
    return (
        [float((c - e).norm() / e.norm()) for c, e in zip(cut, exact, strict=True)],
        [float(torch.cosine_similarity(c.flatten(), e.flatten(), dim=0)) for c, e in zip(cut, exact, strict=True)],
    )


def measure() -> list[dict[str, Any]]:
    rows = []
    for decay in DECAYS:
        for length in LENGTHS:
            errors, cosines = zip(*(compare(decay, length, seed) for seed in range(SEEDS)), strict=True)
            rows.append(
                {
                    "decay": decay,
                    "K": length,
                    "error": torch.tensor(errors).mean(0).tolist(),
                    "error_sd": torch.tensor(errors).std(0).tolist(),
                    "cosine": torch.tensor(cosines).mean(0).tolist(),
                }
            )
            print(rows[-1], flush=True)
    return rows


def report(result: dict[str, Any]) -> str:
    info = result["machine"]
    lines = [
        "# What cutting time does to gradients",
        "",
        f"{LAYERS} layers of {WIDTH} LIF neurons, T = {STEPS}, random weights and input, EXODUS in float64; truncated",
        f"against exact gradient of the same loss, mean over {SEEDS} networks (± sd), made by",
        "`python benchmarks/local_bias.py`.",
        "",
        f"Commit {info['commit']}; Python {info['python']}, torch {info['versions']['torch']}.",
        "",
        "| decay | K | decay^K | relative L2 error, first layer | last layer | cosine, first layer | last layer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['decay']} | {row['K']} | {row['decay'] ** row['K']:.2g} | "
            f"{row['error'][0]:.2f} ± {row['error_sd'][0]:.2f} | {row['error'][-1]:.2f} ± {row['error_sd'][-1]:.2f} | "
            f"{row['cosine'][0]:.3f} | {row['cosine'][-1]:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {"machine": machine(), "rows": measure()}
    files.write_json(options.output / "local_bias.json", result)
    text = report(result)
    files.write_text(options.output / "local_bias.md", text)
    print(text)


if __name__ == "__main__":
    main()
