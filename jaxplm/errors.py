"""Exceptions for which `jaxplm.main` prints one line: a mistake that the user can correct, or a run that was stopped."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake by the user: a wrong field, a missing file, an incompatible checkpoint.

    The message is a single line that says what is wrong and what to do. `jaxplm.main` prints it to
    stderr without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Interrupted(Exception):
    """The run was stopped and saved; `status` is the exit status (143 after SIGTERM, 130 after Ctrl-C)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean <the nearest of the known names>?" for the end of a message, or "" if none is near."""
    near = difflib.get_close_matches(given, [name for name in known if name], n=1)
    return f"; did you mean {near[0]}?" if near else ""
