"""A progress bar on a terminal, or in the output of a notebook's cell. Elsewhere nothing is drawn."""

import sys
import time
from types import TracebackType
from typing import Any, Self

_SECONDS_BETWEEN_DRAWINGS = 0.1
_SECONDS_BETWEEN_MESSAGES = 0.5  # to a notebook's page, which may be far away
_CELLS = 40  # of the bar in a notebook


def on_terminal() -> bool:
    """Return whether stdout is a terminal on which a bar can be drawn."""
    import rich  # here and below: a process that draws nothing does not wait for it

    return sys.stdout.isatty() and rich.get_console().is_interactive


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, whose outputs can be replaced."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class ProgressBar:
    """The share that is done, a bar, and a text, on the last line of the terminal or in the output of a notebook's cell.

    Lines that are printed by `rich.get_console()` meanwhile stand above it. Use it as a context manager, or close it: the bar is
    taken off the terminal at the end. In a notebook it stays as it was last.

    Args:
      total: what `completed` reaches at the end; None if it is not known.
      completed: what is done already.
      enabled: False draws nothing.
    """

    def __init__(self, total: float | None, completed: float = 0, *, enabled: bool = True) -> None:
        self._bar: _TerminalBar | _NotebookBar | None = None
        if enabled and on_terminal():
            self._bar = _TerminalBar(total, completed)
        elif enabled and in_notebook():
            self._bar = _NotebookBar(total)

    @property
    def drawn(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def update(self, completed: float, text: str) -> None:
        """Draw the bar at `completed` with a text beside it, at most some times per second."""
        if self._bar:
            self._bar.update(completed, text)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _TerminalBar:
    def __init__(self, total: float | None, completed: float) -> None:
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
        now = self._progress.get_time()
        self._progress.update(self._task, completed=completed, description=text, refresh=now >= self._next)
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_DRAWINGS

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar:
    """One output of the cell, replaced at each drawing: plain text, so that any page can show it and a saved notebook is small."""

    def __init__(self, total: float | None) -> None:
        self._total = total
        self._output: Any = None  # made by the first drawing
        self._line = self._shown = ""
        self._next = 0.0

    def update(self, completed: float, text: str) -> None:
        share = min(completed / self._total, 1.0) if self._total else None
        full = round(_CELLS * share) if share is not None else 0
        self._line = text if share is None else f"{share:4.0%} {'█' * full}{'░' * (_CELLS - full)} {text}"
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_MESSAGES
            self._draw()

    def close(self) -> None:
        if self._line != self._shown:
            self._draw()

    def _draw(self) -> None:
        bundle = {"text/plain": self._line}
        if self._output is None:
            display = sys.modules["IPython"].display.display
            self._output = display(bundle, raw=True, display_id=True)
        else:
            self._output.update(bundle, raw=True)
        self._shown = self._line
