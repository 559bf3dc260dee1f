"""Sums and speed of the steps since the last line of the log."""

import time
from typing import Any

import jax

from jaxplm.scores.sums import Sums, add


class Meter:
    """Sums of the steps since the last report, and the speed over them."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self.loss: float | None = None
        self.speed: float | None = None
        self._restart()

    def _restart(self) -> None:
        self._sums: Sums = {}
        self._last: dict[str, float] = {}
        self._began = time.monotonic()
        self._skipped = 0

    def read(self, values: dict[str, jax.Array]) -> bool:
        """Takes a step's metrics from the device; True if the step was not finite (its sums are left out)."""
        numbers = {name: float(value) for name, value in jax.device_get(values).items()}
        self._last = {name: numbers.pop(name) for name in ("grad_norm", "learning_rate", "bad")}
        if self._last["bad"]:
            self._skipped += 1
            return True
        self._sums = add([self._sums, numbers])
        self.loss = numbers["loss"] / numbers["weight"] if numbers["weight"] else None
        return False

    def report(self) -> dict[str, float]:
        """The row of the steps since the last one, and a new start."""
        seconds = time.monotonic() - self._began
        row = self._task.metrics(self._sums) if self._sums else {}
        tokens = self._sums.get("tokens", 0.0)
        self.speed = tokens / seconds
        row |= {"learning_rate": self._last["learning_rate"], "grad_norm": self._last["grad_norm"],
                "tokens_per_second": round(self.speed, 1), "tokens": tokens, "seconds": round(seconds, 3),
                "skipped_steps": self._skipped}
        self._restart()
        return row

    def paused(self) -> "_Paused":
        """A context whose time is not counted (evaluations, checkpoints)."""
        return _Paused(self)


class _Paused:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._meter._began += time.monotonic() - self._entered
