"""Is the vendor's library really installed? Answered from its files, without importing it.

What PyPI serves as ``samna`` is a stub of Python text that runs pip when it is imported. The library itself brings
extension modules. So a package without any is never imported.
"""

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from neurodeploy.errors import DeviceError

NAME = "samna"
#: The index that SynSense's documentation names, and the stub itself turns to.
VENDOR_INDEX = "https://gitlab.com/api/v4/projects/27423070/packages/pypi/simple"
REMEDY = (
    "install SynSense's samna from the vendor's index: pip uninstall samna; "
    f"pip install samna --index-url {VENDOR_INDEX}. What PyPI serves under that name is a stub. "
    "Everything but using a kit works without it, deploy --dry-run included."
)
_COMPILED = (*EXTENSION_SUFFIXES, ".so", ".pyd", ".dylib", ".dll")


def require_samna() -> None:
    """Check that the real library is installed.

    Raises:
        DeviceError: nothing of the name is installed (code ``samna-missing``), or only the stub (``samna-stub``).
    """
    folders, listed = _package_folders(), _listed_files()
    if any(map(_is_compiled, listed)) or any(_is_compiled(path) for folder in folders for path in folder.rglob("*")):
        return
    if not folders:
        raise DeviceError("the vendor's library samna is not installed.", remedy=REMEDY, code="samna-missing")
    raise DeviceError(
        f"{folders[0]} is not the vendor's library: it holds no compiled module. It was not imported, because the stub "
        "that PyPI serves runs pip at import.",
        remedy=REMEDY,
        code="samna-stub",
    )


def _package_folders() -> list[Path]:
    # find_spec of a top-level name looks for files and runs none of them.
    try:
        spec = importlib.util.find_spec(NAME)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []


def _listed_files() -> list[Path]:
    """The files that the installed distribution lists and that are there."""
    try:
        found: Distribution = distribution(NAME)
    except PackageNotFoundError:
        return []
    paths = [Path(str(file.locate())) for file in found.files or ()]
    return [path for path in paths if path.is_file()]


def _is_compiled(path: Path) -> bool:
    return path.name.endswith(_COMPILED) or ".so." in path.name
