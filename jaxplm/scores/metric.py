"""Which way a score is better: the one place that decides it, for checkpoints, for patience and among seeds."""

import math
from dataclasses import dataclass

from jaxplm.scores.names import SHARES

_LOWER_IS_BETTER = frozenset(("loss", "perplexity", "loss_per_character", "pair_loss", "mse"))


@dataclass(frozen=True)
class Metric:
    """A score by which models are compared.

    Attributes:
      name: as in metrics.jsonl.
      higher_is_better: True for a share or a correlation, False for a loss or an error.
    """

    name: str
    higher_is_better: bool

    def cost(self, value: float | None) -> float:
        """Return `value` as a number to minimise; infinity for None, NaN and infinities, which never beat a finite value."""
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if self.higher_is_better else value

    def better(self, new: float | None, old: float | None) -> bool:
        """Return whether `new` beats `old`. Equal values do not beat each other."""
        return self.cost(new) < self.cost(old)


def metric_named(name: str) -> Metric:
    """Return the metric of a score that this package computes.

    Raises:
      ValueError: for any other name.
    """
    if name not in SHARES | _LOWER_IS_BETTER:
        raise ValueError(f"score {name!r}: which way is better is not known; known are {', '.join(sorted(SHARES | _LOWER_IS_BETTER))}")
    return Metric(name, higher_is_better=name not in _LOWER_IS_BETTER)


def metrics_named(*names: str) -> tuple[Metric, ...]:
    """Return the metrics of several scores; see `metric_named`."""
    return tuple(map(metric_named, names))


LOSS = metric_named("loss")
