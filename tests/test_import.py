"""What importing says where the compiled module is missing."""

import importlib
import subprocess
import sys

import pytest


def test_sources_without_the_compiled_module_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "neurodeploy.extension", raising=False)
    monkeypatch.setitem(sys.modules, "neurodeploy._ext", None)  # what an import of nothing finds
    with pytest.raises(ImportError, match=r"cannot be loaded from .*pip install -e \.") as caught:
        importlib.import_module("neurodeploy.extension")
    assert caught.value.name == "neurodeploy._ext"


def test_importing_and_helping_load_no_large_library() -> None:
    code = """
import sys
import neurodeploy, neurodeploy.cli, neurodeploy.graph.load, neurodeploy.graph.file
from neurodeploy.cli.targets_verb import command
large = {"torch", "onnx", "onnxruntime", "nir", "h5py", "matplotlib", "google.protobuf"}
print(sorted(large & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
