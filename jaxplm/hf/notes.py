"""What is said of a model that was loaded: notes, and warnings among them."""

import logging
from collections.abc import Iterable

log = logging.getLogger("jaxplm")


class Warned(str):
    """A note about something that is most likely wrong with the model's files."""

    __slots__ = ()


def log_notes(notes: Iterable[str]) -> None:
    """Log notes, one line each; those that are warnings as such."""
    for note in notes:
        log.log(logging.WARNING if isinstance(note, Warned) else logging.INFO, "%s", note)
