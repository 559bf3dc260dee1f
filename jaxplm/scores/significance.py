"""Whether ways differ on a task by more than test rows and seeds explain.

Two things are random in the score of a way: which rows the test set has, and which seeds were run. The difference D of two ways
is the mean over S seeds of the differences D_s of their scores, seed by seed. Its variance has two parts, which are estimated
apart and added:

- rows: a paired bootstrap (Efron & Tibshirani 1993; for scores of language tasks Berg-Kirkpatrick et al. 2012). Rows are drawn
  with replacement, the same ones for all ways and seeds, and every score is recomputed. The mean covariance of D_s and D_t of
  two different seeds is what the rows contribute to D.
- seeds: the variance of the D_s over the seeds, divided by S.

The rows of one seed also have errors of their own. They are in the variance over the seeds, and are not in the covariance of
two seeds: nothing counts twice.

With few seeds the second part is known badly. The interval is D ± q √variance, where q lies between the quantile of the normal
distribution and that of Student's t with S - 1 degrees of freedom; see `quantile`. Drawing three or five seeds with replacement
instead gives intervals that are too narrow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxplm.scores.row_parts import RowParts, Scores

RESAMPLES = 10_000
LEVEL = 0.95

# Weights of one block of resamples: 8 bytes each.
_BLOCK_WEIGHTS = 1 << 21

Runs = Mapping[int, RowParts]  # of one way: what its score is made of, by seed


@dataclass(frozen=True)
class Difference:
    """How much better or worse a way's score is than another one's.

    Attributes:
      way: its name.
      mean: the difference of the scores, mean over the seeds that both have; way minus other.
      low, high: interval of 95 %.
      p: two-sided p-value of no difference; below 0.05 exactly where the interval does not hold 0.
      p_holm: the same after Holm's correction for all ways of the table (Holm 1979).
      seeds: how many seeds both ways have. With one, the interval knows of the rows alone.
    All numbers are NaN where both have no seed in common, or no score.
    """

    way: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: int


@dataclass(frozen=True, eq=False)
class Resampled:
    """Scores of the runs of all ways.

    Attributes:
      scores: of the test set as it is: {way: {seed: score}}.
      resampled: [resamples, runs] scores on resampled rows.
      columns: where the run of (way, seed) is among these.
    """

    scores: Mapping[str, Mapping[int, float]]
    resampled: np.ndarray
    columns: Mapping[tuple[str, int], int]


def resample(ways: Mapping[str, Runs], *, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Return the scores of all runs on the test set, and on `resamples` sets of as many rows, drawn with replacement.

    Args:
      ways: runs of each way on the same test set; a way without runs (a failed one) has NaN as its differences.
      resamples: how often the rows are drawn.
      seed: of the draws. The result follows from it.
    """
    columns = {(way, one): place for place, (way, one) in enumerate((way, one) for way, runs in ways.items() for one in runs)}
    table = Scores([ways[way][one] for way, one in columns])
    rng = np.random.default_rng(seed)
    found = np.full((resamples, len(columns)), np.nan)
    block = max(1, _BLOCK_WEIGHTS // max(1, table.rows))
    for begin in range(0, resamples if table.rows else 0, block):
        count = min(block, resamples - begin)
        found[begin : begin + count] = table(draw_rows(rng, count, table.rows))
    whole = table(np.ones((1, table.rows)))[0]
    scores = {way: {one: float(whole[columns[way, one]]) for one in runs} for way, runs in ways.items()}
    return Resampled(scores, found, columns)


def compare_with_base(sample: Resampled, base: str) -> list[Difference]:
    """Compare every other way with `base`, in the order of the ways; see `resample`.

    Args:
      base: one of the ways.
    """
    found = [_difference(way, base, sample) for way in sample.scores if way != base]
    adjusted = holm([one.p for one in found])
    return [dataclasses.replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def not_distinguishable_from_best(sample: Resampled, *, higher_is_better: bool = True) -> tuple[str, list[str]]:
    """Return the way with the best mean score, and the others that do not differ from it: p ≥ 0.05 after Holm's correction.

    Ways without runs are left out. The best is "" where there is none.

    Args:
      sample: see `resample`.
      higher_is_better: which way the score is better.
    """
    means = {way: float(np.mean(list(found.values()))) for way, found in sample.scores.items() if found}
    means = {way: mean for way, mean in means.items() if math.isfinite(mean)}
    if not means:
        return "", []
    best = max(means, key=lambda way: means[way] if higher_is_better else -means[way])
    return best, [one.way for one in compare_with_base(sample, best) if one.way in means and not one.p_holm < 1 - LEVEL]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values (Holm 1979): where those below α are rejected, any false one is rejected with probability ≤ α.

    NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted.tolist()


def draw_rows(rng: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Return [count, rows] how often each row is drawn in `rows` draws with replacement."""
    drawn = rng.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)


def _difference(way: str, base: str, sample: Resampled) -> Difference:
    seeds = [seed for seed in sample.scores[way] if seed in sample.scores[base]]
    by_seed = np.array([sample.scores[way][seed] - sample.scores[base][seed] for seed in seeds])
    if not len(seeds) or not np.isfinite(by_seed).all():
        return Difference(way, *[math.nan] * 5, seeds=len(seeds))
    ours, theirs = ([sample.columns[one, seed] for seed in seeds] for one in (way, base))
    resampled = sample.resampled[:, ours] - sample.resampled[:, theirs]
    resampled = resampled[np.isfinite(resampled).all(1)]  # a correlation may be undefined on a small sample
    mean = float(by_seed.mean())
    if len(resampled) < 2:
        return Difference(way, mean, *[math.nan] * 4, seeds=len(seeds))
    rows, noise = _variances(resampled, by_seed)
    share = noise / (rows + noise) if noise else 0.0
    deviation = math.sqrt(rows + noise)
    width = float(quantile(1 - LEVEL, share, len(seeds))) * deviation
    return Difference(way, mean, mean - width, mean + width, _p_value(mean, deviation, share, len(seeds)), math.nan, len(seeds))


def _variances(resampled: np.ndarray, by_seed: np.ndarray) -> tuple[float, float]:
    """Return what rows and seeds contribute to the variance of the mean difference.

    Args:
      resampled: [resamples, S] differences on resampled rows.
      by_seed: [S] differences.
    """
    around = resampled - resampled.mean(0)
    covariance = around.T @ around / (len(around) - 1)
    seeds = len(by_seed)
    if seeds == 1:
        return float(covariance[0, 0]), 0.0
    rows = (covariance.sum() - covariance.trace()) / (seeds * (seeds - 1))
    return max(0.0, float(rows)), float(by_seed.var(ddof=1)) / seeds


def quantile(p: float, share: float | np.ndarray, seeds: int) -> float | np.ndarray:
    """Return the two-sided quantile of a mean difference, in units of its standard deviation √(rows + seeds).

    Its fourth power is the mean of those of the normal distribution and of Student's t with S - 1 degrees of freedom, the latter
    with the weight share². Chosen by simulation (benchmarks/bootstrap_coverage.py): the error of the first kind is close to p, and
    above it nowhere, for p = 0.05 and in the tail that Holm's correction needs. That of Satterthwaite's t (1946) is four times p
    there with three seeds.

    Args:
      p: the probability beyond it.
      share: the part of the variance that the seeds contribute.
      seeds: S.
    """
    from scipy.special import ndtri, stdtrit

    normal = float(ndtri(p / 2)) ** 4
    student = float(stdtrit(seeds - 1, p / 2)) ** 4 if seeds > 1 else normal
    return (normal + share**2 * (student - normal)) ** 0.25


def _p_value(mean: float, deviation: float, share: float, seeds: int) -> float:
    """Return the p for which 0 is an end of the interval."""
    from scipy.optimize import brentq

    if not mean:
        return 1.0
    if not deviation:
        return 0.0
    ratio = abs(mean) / deviation

    def miss(log_p: float) -> float:
        return float(quantile(math.exp(log_p), share, seeds)) - ratio

    lowest = math.log(1e-60)  # p below that is 0
    if miss(lowest) <= 0:
        return 0.0
    root: Any = brentq(miss, lowest, 0.0)
    return math.exp(root)
