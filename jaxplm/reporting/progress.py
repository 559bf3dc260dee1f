"""How far a training loop is: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from jaxplm.data.progress import ProgressBar
from jaxplm.reporting.numbers import duration

log = logging.getLogger("jaxplm")


class Progress:
    """Shows the steps of a run: a bar where stdout is a terminal, a line every `log_every` steps elsewhere.

    Use it as a context manager, or close it: the bar is taken off the terminal at the end.

    Args:
      total: steps of the whole run.
      start: the step after which a resumed run begins.
      log_every: steps between two lines where there is no terminal.
      enabled: False shows nothing (all processes but the first).
    """

    def __init__(self, total: int, start: int = 0, *, log_every: int = 100, enabled: bool = True) -> None:
        self._total, self._step, self._log_every, self._enabled = total, start, log_every, enabled
        self._seconds_per_step: float | None = None
        self._last: float | None = None  # when `_step` was reached; None until the first update
        self._bar = ProgressBar(total, start, enabled=enabled)

    def update(self, step: int, *, loss: float | None = None, tokens_per_second: float | None = None) -> None:
        """Show that `step` is done.

        Args:
          step: the last one done, counted from 1.
          loss: its training loss, if it is known already.
          tokens_per_second: real tokens (no padding) over all devices.
        """
        now = time.monotonic()
        if self._last is not None and step > self._step:
            # The first step compiles and is not counted; later ones are smoothed over some twenty updates.
            latest = (now - self._last) / (step - self._step)
            old = self._seconds_per_step
            self._seconds_per_step = latest if old is None else 0.95 * old + 0.05 * latest
        before, self._step, self._last = self._step, step, now
        if not self._enabled:
            return
        parts = [f"step {step}/{self._total}"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}" if math.isfinite(loss) else "loss not finite")
        if tokens_per_second is not None:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if (left := self.seconds_left) is not None:
            parts.append(f"ETA {duration(left)}")
        if self._bar.drawn:
            self._bar.update(step, "  ".join(parts))
        elif step // self._log_every > before // self._log_every or step == self._total:
            log.info("%s", "  ".join(parts))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the last step, without evaluations; None until two steps are done."""
        if self._seconds_per_step is None:
            return None
        return self._seconds_per_step * max(self._total - self._step, 0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep what happens inside the block (an evaluation, a checkpoint) out of the estimate."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._last is not None:
                self._last += time.monotonic() - began

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
