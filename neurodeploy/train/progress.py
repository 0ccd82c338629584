"""Progress of a training run on the terminal: a bar, or plain lines where there is no terminal."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainProgress:
    """Show batches and epochs on standard error (standard output stays free for results)."""

    def __init__(self, epochs: int, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._progress.add_task("preparing the recordings", total=None)

    def __enter__(self) -> "TrainProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line of text."""
        self._console.print(text)

    def begin_epoch(self, epoch: int, batches: int) -> None:
        """Start the bar again for epoch 1, 2, ..."""
        self._progress.reset(self._task, total=batches, description=f"epoch {epoch}/{self._epochs}")

    def batch(self) -> None:
        """One batch is done."""
        self._progress.advance(self._task)
