"""Files are written whole or not at all, and a file that cannot be written is one clear error."""

from pathlib import Path

import pytest

from neurodeploy.errors import ConfigError
from neurodeploy.files import replacing, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def half_a_file() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_a_file()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.txt", {"value": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("path", ["file/a.txt", "file/sub/a.txt", "folder"])
def test_a_file_that_cannot_be_written_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=f"{path} cannot be written") as caught:
        write_text(tmp_path / path, "text")
    assert caught.value.code == "cannot-write"
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["file", "folder"]
