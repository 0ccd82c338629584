"""What importing says where the compiled module is missing."""

import importlib
import sys

import pytest


def test_sources_without_the_compiled_module_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "neurodeploy.extension", raising=False)
    monkeypatch.setitem(sys.modules, "neurodeploy._ext", None)  # what an import of nothing finds
    with pytest.raises(ImportError, match=r"cannot be loaded from .*pip install -e \.") as caught:
        importlib.import_module("neurodeploy.extension")
    assert caught.value.name == "neurodeploy._ext"
