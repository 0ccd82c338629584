"""Files for the kits of analog chips: written together, each marked as not loaded by the vendor's tool yet."""

from collections.abc import Mapping
from pathlib import Path

from neurodeploy.files import replacing

#: What every such file says, until one of its kind was loaded.
NEVER_LOADED = "Never loaded by the vendor's tool yet: look at the result before it drives a chip."

_SCRIPTS = Path(__file__).parent / "kit_scripts"


def script(name: str) -> str:
    """The text of a script for a kit, by its file name."""
    return (_SCRIPTS / f"{name}.txt").read_text(encoding="utf-8")


def write_kit_files(folder: str | Path, contents: Mapping[str, bytes | str]) -> list[Path]:
    """Write files by name, each all or nothing; a file of an earlier run that is not among them stays.

    Raises:
        ConfigError: a file cannot be written.
    """
    paths = []
    for name, content in contents.items():
        path = Path(folder) / name
        with replacing(path) as temporary:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        paths.append(path)
    return paths
