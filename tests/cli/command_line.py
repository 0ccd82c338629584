"""Running the command line in this process."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from neurodeploy.cli import main


@dataclass(frozen=True)
class Result:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.out)


class CommandLine:
    """Calls ``neurodeploy`` with arguments as a shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self.monkeypatch.setattr("sys.argv", ["neurodeploy", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = self.capsys.readouterr()
        return Result(int(exit_info.value.code or 0), captured.out, captured.err)
