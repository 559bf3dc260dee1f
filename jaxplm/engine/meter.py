"""The sums and the speed of the steps since the last row of the log."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from jaxplm.scores.sums import Sums, add
from jaxplm.tasks import Task


class Meter:
    """The sums of the steps since the last report, and the speed over them.

    Attributes:
      loss: of the last finite step, per unit of its weight; None before one was read or where its weight is 0.
      speed: real tokens per second up to the last report, without the steps that compiled; None before it.
      nonfinite_in_a_row: how many of the last steps had a loss or gradient that is not finite, one after the other.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.loss: float | None = None
        self.speed: float | None = None
        self.nonfinite_in_a_row = 0
        self._restart()

    def _restart(self) -> None:
        self._sums: Sums = {}
        self._last: dict[str, float] = {}
        self._began = self._read_at = time.monotonic()
        self._compiling = 0.0
        self._left_out = 0.0, 0.0  # seconds and tokens
        self._skipped = 0

    def read(self, values: dict[str, jax.Array]) -> None:
        """Fetch a step's metrics from the device, which waits for that step. The sums of a nonfinite step are left out."""
        numbers = {name: float(value) for name, value in jax.device_get(values).items()}
        self._read_at = time.monotonic()
        self._last = {name: numbers.pop(name) for name in ("grad_norm", "learning_rate", "nonfinite")}
        if self._last["nonfinite"]:
            self._skipped += 1
            self.nonfinite_in_a_row += 1
            return
        self.nonfinite_in_a_row = 0
        self._sums = add([self._sums, numbers])
        self.loss = numbers["loss"] / numbers["weight"] if numbers["weight"] else None

    def mark(self) -> tuple[float, float]:
        """Return when a step was last read and the tokens up to it, for `compiled`."""
        return self._read_at, self._sums.get("tokens", 0.0)

    def compiled(self, since: tuple[float, float], seconds: float) -> None:
        """Leave the steps that were read after a mark out of the speed, because one of them compiled.

        Such a step does more than compile: its first execution loads the kernels and reserves their memory.

        Args:
          since: what `mark` returned before the step.
          seconds: of them on compilation, for a row that has no other step.
        """
        read_at, tokens = since
        seconds_before, tokens_before = self._left_out
        self._left_out = seconds_before + self._read_at - read_at, tokens_before + self._sums.get("tokens", 0.0) - tokens
        self._compiling += seconds

    def state(self) -> dict[str, Any]:
        """Return the sums since the last report, for a checkpoint: a resumed run reports the same rows; see `resume`."""
        return {"sums": dict(self._sums), "skipped": self._skipped, "nonfinite_in_a_row": self.nonfinite_in_a_row,
                "seconds": round(time.monotonic() - self._began, 3), "compiling": round(self._compiling, 3),
                "left_out": list(self._left_out)}

    def resume(self, state: dict[str, Any]) -> None:
        """Take the sums of the steps between the last report and a checkpoint, as `state` gave them there."""
        self._sums, self._skipped = dict(state["sums"]), state["skipped"]
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
        self._read_at = time.monotonic()
        self._began = self._read_at - state["seconds"]
        self._compiling = state["compiling"]
        seconds, tokens = state.get("left_out", (0.0, 0.0))  # older checkpoints have none
        self._left_out = seconds, tokens

    def report(self) -> dict[str, float]:
        """Return the row of the steps since the last one, and start the next."""
        seconds = time.monotonic() - self._began
        row = self._task.metrics(self._sums) if self._sums else {}
        tokens = self._sums.get("tokens", 0.0)
        seconds_left_out, tokens_left_out = self._left_out
        if tokens > tokens_left_out:
            speed = (tokens - tokens_left_out) / max(seconds - seconds_left_out, 1e-9)
        else:  # every step of the row compiled
            speed = tokens / max(seconds - self._compiling, 1e-9)
        self.speed = speed
        row |= {"learning_rate": self._last["learning_rate"], "grad_norm": self._last["grad_norm"],
                "tokens_per_second": round(speed, 1), "tokens": tokens, "seconds": round(seconds, 3),
                "skipped_steps": self._skipped}
        self._restart()
        return row

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time inside this context (evaluations, checkpoints)."""
        entered = time.monotonic()
        yield
        self._read_at = time.monotonic()
        self._began += self._read_at - entered
