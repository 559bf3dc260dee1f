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
      speed: real tokens per second up to the last report, without the time of compilations; None before it.
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
        self._began = time.monotonic()
        self._compiling = 0.0
        self._skipped = 0

    def read(self, values: dict[str, jax.Array]) -> None:
        """Fetch a step's metrics from the device, which waits for that step. The sums of a nonfinite step are left out."""
        numbers = {name: float(value) for name, value in jax.device_get(values).items()}
        self._last = {name: numbers.pop(name) for name in ("grad_norm", "learning_rate", "nonfinite")}
        if self._last["nonfinite"]:
            self._skipped += 1
            self.nonfinite_in_a_row += 1
            return
        self.nonfinite_in_a_row = 0
        self._sums = add([self._sums, numbers])
        self.loss = numbers["loss"] / numbers["weight"] if numbers["weight"] else None

    def compiled(self, seconds: float) -> None:
        """Leave seconds that were spent on compiling out of the speed."""
        self._compiling += seconds

    def state(self) -> dict[str, Any]:
        """Return the sums since the last report, for a checkpoint: a resumed run reports the same rows; see `resume`."""
        return {"sums": dict(self._sums), "skipped": self._skipped, "nonfinite_in_a_row": self.nonfinite_in_a_row,
                "seconds": round(time.monotonic() - self._began, 3), "compiling": round(self._compiling, 3)}

    def resume(self, state: dict[str, Any]) -> None:
        """Take the sums of the steps between the last report and a checkpoint, as `state` gave them there."""
        self._sums, self._skipped = dict(state["sums"]), state["skipped"]
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
        self._began = time.monotonic() - state["seconds"]
        self._compiling = state["compiling"]

    def report(self) -> dict[str, float]:
        """Return the row of the steps since the last one, and start the next."""
        seconds = time.monotonic() - self._began
        row = self._task.metrics(self._sums) if self._sums else {}
        tokens = self._sums.get("tokens", 0.0)
        speed = self.speed = tokens / max(seconds - self._compiling, 1e-9)
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
        self._began += time.monotonic() - entered
