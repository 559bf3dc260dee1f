"""SIGTERM and Ctrl-C ask the loop to stop after the step it is in; a second Ctrl-C stops at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from jaxplm.devices.processes import highest


class StopRequest:
    """A context in which the two signals are recorded and raise no exception.

    Python gives signals to its main thread. In another thread nothing is changed: the main thread answers them.

    Attributes:
      status: what this process should exit with (143 for SIGTERM, 130 for Ctrl-C), or 0.
    """

    def __init__(self) -> None:
        self.status = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.status:
            raise KeyboardInterrupt
        self.status = 143 if number == signal.SIGTERM else 130

    def agreed(self) -> int:
        """Return the status that any process was asked to stop with, or 0. All processes must call this at the same step."""
        return highest(self.status)
