"""sinabs' chip back end without the vendor's library, as an outside oracle for quantization."""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

has_sinabs = importlib.util.find_spec("sinabs") is not None
needs_sinabs = pytest.mark.skipif(not has_sinabs, reason="sinabs is not installed")


class _Anything(type):
    """A class of which every attribute is such a class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Placeholder(types.ModuleType):
    """Stands for any module of the vendor's library."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


@contextmanager
def placeholder_for_samna() -> Iterator[None]:
    """Let ``sinabs.backend.dynapcnn`` be imported: its top imports the vendor's library."""
    names = ["samna", "samnagui", "samna.specksim", "samna.specksim.nodes"]
    names += [f"samna.{chip}{part}" for chip in ("speck2e", "speck2f") for part in ("", ".configuration")]
    added = [name for name in names if name not in sys.modules]
    sys.modules.update({name: _Placeholder(name) for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def dynapcnn_network(*args: Any, **kwargs: Any) -> Any:
    """``sinabs.backend.dynapcnn.DynapcnnNetwork(...)``."""
    with placeholder_for_samna():
        return importlib.import_module("sinabs.backend.dynapcnn").DynapcnnNetwork(*args, **kwargs)


def discretize_module() -> Any:
    """``sinabs.backend.dynapcnn.discretize``."""
    with placeholder_for_samna():
        return importlib.import_module("sinabs.backend.dynapcnn.discretize")
