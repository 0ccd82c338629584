"""Fine-tuning on a chip's integers: what few bits cost a trained network, and what training on them brings back.

Digits of the simulated event camera, the network of ``neurodeploy/train/templates/digits.yaml``. For each seed the
network is trained in float; then, for invented chips that differ from Speck2f in the bits of a weight alone, it is

- compiled as it is (post-training quantization), and after ``nd.calibrate`` on training recordings,
- trained further in float for as many epochs and compiled (the control: is it the integers, or the longer training?),
- trained further on the chip's integers for the same epochs (``quantize_aware``) and compiled.

Accuracies are those of the event-driven emulator, the documented behaviour of the chip, on held-out recordings.

    python benchmarks/fine_tuning.py
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import neurodeploy as nd
from neurodeploy import files
from neurodeploy.events import save_npz, simulate_digit_events
from neurodeploy.train import TEMPLATES, TrainResult, load_config, train

CALIBRATION_RECORDINGS = 100
COLUMNS = {
    "float": "float, time-stepped",
    "quantized": "quantized",
    "calibrated": "calibrated",
    "float_longer": "float for longer, quantized",
    "fine_tuned": "fine-tuned on the integers",
}


def write_chip(folder: Path, weight_bits: int) -> Path:
    """A chip that is Speck2f's family with fewer bits per weight."""
    bits = {"value": weight_bits, "source": "an invented chip"}
    chip = {
        "family": "dynapcnn",
        "name": f"weights{weight_bits}",
        "title": f"DynapCNN with {weight_bits}-bit weights",
        "limits": {"weight_bits": bits},
        "quantization": {"weight_bits": bits},
    }
    path = folder / f"weights{weight_bits}.yaml"
    files.write_text(path, yaml.safe_dump(chip))
    return path


def graph_of(result: TrainResult) -> Any:
    """The trained network as a graph."""
    return nd.trace(result.network, torch.zeros(result.data.n_time_steps, *result.data.test.sensor_size))


def accuracies(result: TrainResult, chip: Path, calibration: Any = None) -> dict[str, float]:
    """Accuracy of the compiled network, in time steps and event by event."""
    deployment = nd.compile(graph_of(result), target=chip, calibration=calibration)
    validation = nd.validate(
        deployment, result.data.test, dt_us=result.data.dt_us, runs=["time_stepped"], explain=False, threads=2
    )
    return validation.accuracy


def one_seed(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is measured for one seed."""
    settings = {
        "data": {"source": "npz", "train": str(folder / "train.npz"), "test": str(folder / "test.npz")},
        "seed": seed,
        "epochs": options.epochs,
    }
    config = load_config(TEMPLATES / "digits.yaml", settings)
    print(f"seed {seed}: float", flush=True)
    trained = train(config, folder / f"float{seed}", quiet=True)
    further = {
        **settings,
        "init": str(folder / f"float{seed}"),
        "epochs": options.fine_epochs,
        "optimizer.lr": options.lr,
    }
    print(f"seed {seed}: float {trained.test_accuracy:.3f}; float for longer", flush=True)
    longer = train(load_config(TEMPLATES / "digits.yaml", further), folder / f"longer{seed}", quiet=True)
    row: dict[str, Any] = {"seed": seed, "float": trained.test_accuracy, "chips": []}
    for bits in options.bits:
        chip = write_chip(folder, bits)
        calibration = nd.calibrate(
            graph_of(trained),
            trained.data.train[:CALIBRATION_RECORDINGS],
            dt_us=trained.data.dt_us,
            target=chip,
            threads=2,
        )
        on_chip = load_config(TEMPLATES / "digits.yaml", further | {"quantize_aware.target": str(chip)})
        tuned = train(on_chip, folder / f"tuned{seed}-{bits}", quiet=True)
        found = {
            "weight_bits": bits,
            "quantized": accuracies(trained, chip),
            "calibrated": accuracies(trained, chip, calibration.calibration),
            "float_longer": accuracies(longer, chip),
            "fine_tuned": accuracies(tuned, chip),
            "training_saw": tuned.test_accuracy,
        }
        if found["training_saw"] != found["fine_tuned"]["time_stepped"]:
            raise SystemExit("the integers that were trained are not those that were compiled")
        print(f"seed {seed}: {found}", flush=True)
        row["chips"].append(found)
    return row


def report(result: dict[str, Any]) -> str:
    """The tables."""
    info, settings = result["machine"], result["settings"]
    lines = [
        "# Fine-tuning on the chip's integers",
        "",
        "Made by `python benchmarks/fine_tuning.py`. Digits of the simulated event camera",
        f"({settings['n_train']} training, {settings['n_test']} held-out recordings), the network of the digits",
        f"template, trained for {settings['epochs']} epochs; further training takes {settings['fine_epochs']} epochs",
        f"with a learning rate of {settings['lr']:g}. The chips are Speck2f's family with fewer bits per weight.",
        "Accuracies are those of the event-driven emulator on the held-out recordings, except float, which runs in",
        "time steps.",
        "",
        f"Commit {info['commit']}; torch {info['torch']}.",
        "",
        "| bits of a weight | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for i, bits in enumerate(settings["bits"]):
        cells = []
        for name in COLUMNS:
            values = [
                100 * (row["float"] if name == "float" else row["chips"][i][name]["event_driven"])
                for row in result["seeds"]
            ]
            cells.append(f"{statistics.mean(values):.1f} % ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {bits} | " + " | ".join(cells) + " |")
    seeds = ", ".join(str(row["seed"]) for row in result["seeds"])
    lines += [
        "",
        f"Mean, and smallest to largest, over the seeds {seeds}.",
        "",
        "`calibrated` chooses clipped weight ranges and moved thresholds on",
        f"{CALIBRATION_RECORDINGS} training recordings (`nd.calibrate`), without training. `float for longer` is the",
        "control: the same further epochs in float, then quantized. For every seed and chip the accuracy that training",
        "saw after its last epoch equals that of the compiled integers in time steps (last column).",
        "",
        "| seed | bits | " + " | ".join(COLUMNS.values()) + " | fine-tuned, time-stepped |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for row in result["seeds"]:
        for chip in row["chips"]:
            cells = [row["float"], *(chip[name]["event_driven"] for name in COLUMNS if name != "float")]
            cells.append(chip["fine_tuned"]["time_stepped"])
            lines.append(
                f"| {row['seed']} | {chip['weight_bits']} | " + " | ".join(f"{100 * c:.1f} %" for c in cells) + " |"
            )
    return "\n".join(lines) + "\n"


def commit() -> str:
    """Short hash of the checkout, with a mark if it has changes."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(
                ("git", *arguments), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            ).stdout.strip()
        except OSError:  # no git on this machine
            return ""

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        "+changes" if git("status", "--porcelain", "-uno") else ""
    )


def main() -> None:
    """Run all seeds and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 2])
    parser.add_argument("--n-train", type=int, default=1500)
    parser.add_argument("--n-test", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=4, help="epochs in float")
    parser.add_argument("--fine-epochs", type=int, default=2, help="further epochs")
    parser.add_argument("--lr", type=float, default=0.002, help="learning rate of the further epochs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of the report")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": {"commit": commit(), "torch": torch.__version__, "cores": os.cpu_count()},
        "settings": {k: v for k, v in vars(options).items() if k not in ("output", "seeds")},
        "seeds": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, data in zip(
            ("train", "test"), simulate_digit_events(options.n_train, options.n_test, seed=0), strict=True
        ):
            save_npz(folder / f"{part}.npz", data)
        for seed in options.seeds:
            result["seeds"].append(one_seed(seed, options, folder))
    files.write_json(options.output / "fine_tuning.json", result)
    text = report(result)
    files.write_text(options.output / "fine_tuning.md", text)
    print(text)


if __name__ == "__main__":
    main()
