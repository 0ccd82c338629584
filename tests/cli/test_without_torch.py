"""Compiling, emulating, validating event by event and reporting need no torch: they run on a lab PC without it."""

import subprocess
import sys

from neurodeploy.events.dataset import save_npz
from neurodeploy.graph.file import save_graph

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of torch fails
from neurodeploy.cli import main
main()
"""


def run(*arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_from_a_graph_to_the_report(tmp_path, small_graph, recordings):
    save_graph(small_graph, tmp_path / "model.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    folder, data = tmp_path / "run", tmp_path / "data.npz"
    for arguments in (
        ["check", tmp_path / "model.onnx"],
        ["compile", tmp_path / "model.onnx", "-o", folder],
        ["emulate", folder, "--events", data, "--index", 0],
        ["validate", folder, "--data", data, "--runs", "event_driven", "--v-min", "lowest"],
        ["report", folder],
    ):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr
    assert (folder / "report.html").is_file()
    result = run("validate", folder, "--data", data)
    assert result.returncode == 2
    assert "error[torch-missing]" in result.stderr
    assert "--runs event_driven" in result.stderr
