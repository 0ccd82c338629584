"""What verbs print: tables and lines for people, nothing but the result with ``--json``."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_console = Console(highlight=False)
if not _console.is_terminal:
    _console = Console(highlight=False, width=140)  # a file or a pipe has no width of its own

#: A cell that is a number, a range or a share of numbers, or empty.
_NUMBER = re.compile(r"([-+]?\d[-+\d.,e]*%?)?")


@contextmanager
def machine_readable(active: bool) -> Iterator[None]:
    """Silence everything meant for people while ``active``."""
    before, _console.quiet = _console.quiet, active
    try:
        yield
    finally:
        _console.quiet = before


def say(text: str) -> None:
    """Print one line."""
    _console.print(text, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    drawn = Table(title=title, title_justify="left", header_style="bold", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(cells) and all(_NUMBER.fullmatch(row[index]) for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in cells:
        drawn.add_row(*map(Text, row))
    _console.print(drawn)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with (done, total): a bar on a terminal, else a line every ten seconds."""
    if _console.is_terminal and not _console.quiet:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_console, transient=True) as bar:
            task = bar.add_task(what)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{what}: {done} of {total}")

    yield line
