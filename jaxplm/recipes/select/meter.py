"""How far a pass over the corpus is: a bar on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from jaxplm.data.progress import ProgressBar
from jaxplm.reporting.numbers import duration

log = logging.getLogger("jaxplm")

_LOG_EVERY = 10.0  # seconds


class Meter:
    """Shows how many texts are done. Use it as a context manager.

    Args:
      what: is done: "reading the corpus".
      total: texts; None where they are not known.
      share: the share that is done, where it is known by other means than texts.
    """

    def __init__(self, what: str, total: int | None = None, share: Callable[[], float | None] = lambda: None) -> None:
        self._what, self._total, self._share = what, total, share
        self._bar = ProgressBar(1.0)
        self._began = self._logged = time.monotonic()
        self._first: float | None = None  # share at the first call: what an earlier run has done is quick

    def __call__(self, done: int) -> None:
        """Show that so many texts are done."""
        now = time.monotonic()
        share = done / self._total if self._total else self._share()
        if share is not None and self._first is None:
            self._first, self._began = share, now
        text = f"{self._what}: {done:,}" + (f" of {self._total:,}" if self._total else "") + " texts"
        if share is not None and self._first is not None and share > self._first:
            text += f", ETA {duration((now - self._began) * (1 - share) / (share - self._first))}"
        self._bar.update(share or 0.0, text)
        if not self._bar.drawn and now - self._logged > _LOG_EVERY:
            self._logged = now
            log.info("%s", text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
