"""A progress bar on a terminal. Where stdout is no terminal nothing is drawn."""

import sys
from types import TracebackType
from typing import Self

_SECONDS_BETWEEN_DRAWINGS = 0.1


def on_terminal() -> bool:
    """Return whether stdout is a terminal on which a bar can be drawn."""
    import rich  # here and below: a process that draws nothing does not wait for it

    return sys.stdout.isatty() and rich.get_console().is_interactive


class ProgressBar:
    """The share that is done, a bar, and a text, on the last line of the terminal.

    Lines that are printed by `rich.get_console()` meanwhile stand above it. Use it as a context manager, or close it: the bar is
    taken off the terminal at the end.

    Args:
      total: what `completed` reaches at the end; None if it is not known.
      completed: what is done already.
      enabled: False draws nothing.
    """

    def __init__(self, total: float | None, completed: float = 0, *, enabled: bool = True) -> None:
        self.drawn = enabled and on_terminal()  # whether there is a bar
        if not self.drawn:
            return
        import rich
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        # No thread draws: `update` does. Nothing is redirected: our lines go through rich's console anyway.
        self._progress = Progress(
            TaskProgressColumn("{task.percentage:3.0f}%", markup=False), BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False), console=rich.get_console(), transient=True, expand=True,
            auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._task = self._progress.add_task("", total=total, completed=int(completed))
        self._next = 0.0
        self._progress.start()

    def update(self, completed: float, text: str) -> None:
        """Draw the bar at `completed` with a text beside it, at most ten times per second."""
        if not self.drawn:
            return
        now = self._progress.get_time()
        self._progress.update(self._task, completed=completed, description=text, refresh=now >= self._next)
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_DRAWINGS

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self.drawn:
            self._progress.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
