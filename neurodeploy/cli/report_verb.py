"""``neurodeploy report``."""

from pathlib import Path
from typing import Any

from pydantic import Field

from neurodeploy.cli.output import say
from neurodeploy.cli.verb import Options, verb
from neurodeploy.report.report import write_report


class ReportOptions(Options):
    """Options of ``neurodeploy report``."""

    run: Path = Field(
        description="a folder written by 'neurodeploy compile' and, for the results, 'neurodeploy validate'."
    )


@verb(ReportOptions)
def command(options: ReportOptions) -> dict[str, Any]:
    """Write report.html, one self-contained page about a run folder."""
    page = write_report(options.run)
    say(f"wrote {page}")
    return {"report": str(page)}
