"""The benchmarks of training run, agree with what they are compared with, and write their reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_quick_run_of_the_training_benchmark(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "training_cpu.py", "--quick", "--output", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "training_cpu.json").read_text())
    (part,) = result["threads"]
    ours = {name: row for name, row in part["layers"][0]["rows"].items() if name.startswith("neurodeploy")}
    assert len(ours) == 7
    for name, row in ours.items():
        assert row["spikes_differ"] == 0, name
        assert row["gradient_l2"] < 1e-5, name  # rounding of float32 over 30 steps
    for network in part["networks"]:
        row = network["rows"]["neurodeploy exodus"]
        assert row["spikes_differ"] == 0
        assert row["gradient_l2"] < 1e-5
    page = (tmp_path / "training_cpu.md").read_text()
    assert all(f"| {name} |" in page for name in ours)


def test_quick_run_of_the_gpu_benchmark(tmp_path: Path) -> None:
    """Without a GPU it tries all of the script but the device."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--quick", "--no-checks", "--output", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    for case in result["layers"]:
        ours = {
            name: row for name, row in case["rows"].items() if name.startswith("neurodeploy") and "graph" not in name
        }
        assert len(ours) == 2
        for name, row in ours.items():
            assert row["spikes_differ"] == 0, name
            assert row["gradient_l2"] < 1e-5, name  # rounding of float32 over 30 steps
    assert all(row["repeats"] for row in result["kinds"]["rows"].values())
    page = (tmp_path / "gpu.md").read_text()
    assert "| neurodeploy exodus, recompute |" in page


def test_the_gpu_benchmark_measures_nothing_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    script = [sys.executable, BENCHMARKS / "gpu.py", "--output", tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch finds no GPU here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_quick_run_of_the_analog_benchmark(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "analog_emulator.py", "--quick", "--output", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "analog_emulator.json").read_text())["cases"]
    (row,) = case["time_stepped"]
    assert row["error"] < 0.02  # the step was chosen on other samples to be within 0.01
    assert row["fire_in_one_only"] < 0.02
    assert case["case"] in (tmp_path / "analog_emulator.md").read_text()


def test_quick_run_of_the_spike_time_benchmark(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "spike_time.py", "--quick", "--output", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps = json.loads((tmp_path / "spike_time_cpu.json").read_text())["steps"]
    for target, row in steps["found"].items():
        assert 0.5 * float(target) < row["mean_error"] <= float(target)
    assert len(steps["rows"]) == 5
    assert "| event-based (exact) |" in (tmp_path / "spike_time_cpu.md").read_text()
