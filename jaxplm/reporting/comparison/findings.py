"""What follows from a comparison: scores, gains over `base`, the best ways, costs, the Pareto front."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxplm.reporting.comparison.comparison import Comparison, Cost, Run, Way
from jaxplm.scores.seeds import mean_std

BASE = "base"
# Ways that show what a gain is worth. They are never recommended.
CONTROLS = ("random", "off-domain-dapt")

Key = tuple[str, str]  # (way, method)


@dataclass(frozen=True)
class Gain:
    """A way's score minus that of `base` with the same method, with its 95 % interval; negative is better for losses.

    Attributes:
      mean, low, high: in the metric's own unit.
      p: of the paired bootstrap.
      p_holm: corrected for the number of ways.
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Standing:
    """What the statistics say: the gain of each way, and which are not distinguishable from the best one."""

    gains: Mapping[Key, Gain]
    tied: frozenset[Key]
    test_rows: int | None


NO_STANDING = Standing({}, frozenset(), None)


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
      way: what was measured.
      scores: one per seed, on `Findings.split`; empty where the way failed or has not ended.
      mean, std: of the scores; NaN where there is none.
      gain: over `base`; None for `base` itself, and where it was not measured.
      is_best: whether no other way has a better mean.
      is_tied: whether it is the best, or not distinguishable from it.
      total: cost of preparation and training together.
    """

    way: Way
    scores: tuple[float, ...]
    mean: float
    std: float
    gain: Gain | None
    is_best: bool
    is_tied: bool
    total: Cost

    @property
    def key(self) -> Key:
        return self.way.name, self.way.method

    @property
    def is_base(self) -> bool:
        return self.way.name == BASE

    @property
    def is_control(self) -> bool:
        return self.way.name in CONTROLS


@dataclass(frozen=True)
class Findings:
    """Everything that tables, plots and recommendation are made of.

    Attributes:
      comparison: as it was collected.
      split: the set whose scores are shown, "test"; "validation" where a way has no test scores.
      outcomes: in the order of the ways.
      test_rows: how many rows the gains were measured on; None where they were not.
    """

    comparison: Comparison
    split: str
    outcomes: tuple[Outcome, ...]
    test_rows: int | None

    @property
    def done(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.scores)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.way.failure)

    @property
    def best(self) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.is_best), None)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(outcome.way.method for outcome in self.outcomes))

    def base(self, method: str) -> Outcome | None:
        """Return the finished `base` of a method."""
        return next((outcome for outcome in self.done if outcome.key == (BASE, method)), None)

    def better(self, difference: float) -> bool:
        """Return whether a difference of scores is an improvement."""
        return difference > 0 if self.comparison.higher_is_better else difference < 0

    def is_significant(self, outcome: Outcome) -> bool:
        """Return whether a way is shown to be better than `base`: corrected p below 0.05, an interval without 0."""
        gain = outcome.gain
        return gain is not None and gain.p_holm < 0.05 and self.better(gain.low) and self.better(gain.high)

    def cost_of(self, outcome: Outcome) -> float:
        """Return what ways are compared by: FLOPs, or wall time where FLOPs of some way are unknown."""
        return outcome.total.flops if self.has_flops else outcome.total.seconds

    @property
    def has_flops(self) -> bool:
        return all(outcome.total.flops > 0 for outcome in self.done)

    @property
    def front(self) -> tuple[Outcome, ...]:
        """The ways that no cheaper or equally cheap one matches, by rising cost."""
        sign = -1 if self.comparison.higher_is_better else 1
        found: list[Outcome] = []
        for outcome in sorted(self.done, key=lambda one: (self.cost_of(one), sign * one.mean)):
            if self.cost_of(outcome) > 0 and (not found or self.better(outcome.mean - found[-1].mean)):
                found.append(outcome)
        return tuple(found)


def find(comparison: Comparison, standing: Standing) -> Findings:
    """Return what follows from a comparison and its statistics."""
    runs = [run for way in comparison.ways if not way.failure for run in way.runs]
    split = "test" if runs and all(comparison.metric in run.test for run in runs) else "validation"
    scores = [scores_of(way.runs, split, comparison.metric) if not way.failure else () for way in comparison.ways]
    best = _best(comparison, scores)
    outcomes = []
    for i, (way, found) in enumerate(zip(comparison.ways, scores, strict=True)):
        mean, std = mean_std(found)
        key = (way.name, way.method)
        tied = bool(found) and (i == best or key in standing.tied)
        outcomes.append(
            Outcome(
                way, found, mean, std, standing.gains.get(key), i == best, tied, total(way.preparation, way.training)
            )
        )
    findings = Findings(comparison, split, tuple(outcomes), standing.test_rows)
    if best is None or not findings.is_significant(outcomes[best]):
        return findings
    # The test of the best way against `base` is corrected for fewer comparisons than the list of ties, and outranks it.
    untied = (BASE, outcomes[best].way.method)
    outcomes = [dataclasses.replace(one, is_tied=False) if one.key == untied else one for one in outcomes]
    return dataclasses.replace(findings, outcomes=tuple(outcomes))


def scores_of(runs: Sequence[Run], split: str, metric: str) -> tuple[float, ...]:
    """Return the finite scores of runs on the test or validation set."""
    found = [(run.test if split == "test" else run.validation).get(metric, math.nan) for run in runs]
    return tuple(value for value in found if math.isfinite(value))


def total(*costs: Cost) -> Cost:
    """Return the sum of costs. Its energy is None where one of those that took time has none."""
    joules = [cost.joules for cost in costs if cost.seconds > 0 or cost.joules is not None]
    return Cost(
        sum(cost.tokens for cost in costs), sum(cost.flops for cost in costs), sum(cost.seconds for cost in costs),
        sum(known) if (known := [one for one in joules if one is not None]) and len(known) == len(joules) else None,
    )  # fmt: skip


def _best(comparison: Comparison, scores: Sequence[Sequence[float]]) -> int | None:
    """Return which way has the best mean; of equal ones a way that can be recommended."""
    sign = 1 if comparison.higher_is_better else -1
    means = {i: sign * mean_std(found)[0] for i, found in enumerate(scores) if found}
    return max(means, key=lambda i: (means[i], comparison.ways[i].name not in CONTROLS), default=None)
