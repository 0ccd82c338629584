"""The compiled module, or clear words where it is missing."""

import importlib
from pathlib import Path
from typing import Any


def _load() -> Any:
    try:
        return importlib.import_module("neurodeploy._ext")
    except ImportError as error:
        raise ImportError(
            f"The compiled module of neurodeploy cannot be loaded from {Path(__file__).parent}: {error}. In a checkout "
            "python takes the sources before an installed copy: run in another folder, or install in place with "
            "pip install -e .",
            name="neurodeploy._ext",
        ) from error


native = _load()
"""``neurodeploy._ext``: one submodule for each ``Registration`` in the C++ sources."""
