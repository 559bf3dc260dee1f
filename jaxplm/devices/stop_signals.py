"""Ctrl-C and SIGTERM from the first moment of a command on; the training loop has its own answer (`jaxplm.engine.signals`).

Imports nothing that takes time: it is the first module that the command imports.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


_BEFORE_END: list[Callable[[], None]] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C, so that files and locks are left in order."""


def status_of(number: int) -> int:
    """Return the exit status of a process that a signal has ended, as shells report it."""
    return 128 + number


def end_at_once() -> None:
    """Let both signals end the process with one line. For the time when nothing has been written yet.

    An exception would be raised in the middle of an import. Libraries swallow it there, or the process crashes at its end.
    """
    _answer_by(_end)


def raise_exceptions() -> None:
    """Let both signals raise: `KeyboardInterrupt` for Ctrl-C, `Terminated` for SIGTERM; a second signal ends the process."""
    _answer_by(_raise)


def _answer_by(handler: object) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and scripts in the background ignore Ctrl-C
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a restart holds them back, see `hold_back`


def hold_back() -> None:
    """Keep signals for the program that this process becomes by `exec`, until it calls `end_at_once`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextlib.contextmanager
def before_end(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` where a signal ends the process at once inside this block."""
    _BEFORE_END.append(action)
    try:
        yield
    finally:
        _BEFORE_END.remove(action)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    try:
        for action in _BEFORE_END:
            with contextlib.suppress(Exception):
                action()
        os.write(2, f"jaxplm: stopped by {_NAMES[signal.Signals(number)]}\n".encode())
    finally:
        os._exit(status_of(number))


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    _answer_by(_end)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def describe(stopped: KeyboardInterrupt) -> tuple[str, int]:
    """Return the line for a signal that was raised, and the exit status."""
    number = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
    return f"stopped by {_NAMES[number]}", status_of(number)
