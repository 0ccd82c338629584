"""The benchmark of training runs, agrees with what it is compared with, and writes its report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "training_cpu.py"


def test_quick_run_of_the_training_benchmark(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--output", tmp_path], capture_output=True, text=True, check=False
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
