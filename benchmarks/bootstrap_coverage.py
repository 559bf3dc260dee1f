"""Measure on simulated scores whether the intervals of a comparison hold, and how often it finds a difference where there is none.

    python benchmarks/bootstrap_coverage.py [--sets=200] [--rows=139,500,3000]

Nine ways (base and eight others) are run with 3 or 5 seeds on test sets of several sizes. A row is right where

    level of the way + difficulty of the row + way × row + seed + seed × row > 0,

all of them normal. Rows of a difficult class are right less often, and a wrong row gets a class that its difficulty suggests. Seeds are
"calm" (standard deviation of the accuracy 0.5 points), "usual" (1.5) or "wild" (4). The true difference is known: zero in half of the
sets; in the others, four of the eight ways are better by 1 to 4 points, and it comes from 2 million rows.

Printed, for each case:

- cover: share of the 95 % intervals of `compare_with_base` that hold the true difference; it should be 93 to 97 %;
- naive: the same for percentile intervals of a bootstrap that draws rows and seeds with replacement;
- false: share of the sets without differences where any of eight ways has p < 5 % after Holm's correction; at most 5 %;
- found: share of the differences of 4 points that are found after the correction;
- best: share of the sets whose truly best way is the best or among those that are not distinguishable from it.

With --quantiles, only the quantile of the interval is measured, on normal numbers: for p = 5 % and p = 0.625 % (eight ways after Holm's
correction), the share of differences of nothing that are beyond it, in units of p, beside two other rules.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxplm.scores import row_parts
from jaxplm.scores.row_parts import RowParts
from jaxplm.scores.significance import Difference, Resampled, compare_with_base, not_distinguishable_from_best, quantile, resample

WAYS = ["base", *"abcdefgh"]
GAINS = np.array([0, 0, 0, 0, 0, 0.01, 0.02, 0.03, 0.04])  # of the accuracy
SEED_SPREAD = {"calm": 0.005, "usual": 0.015, "wild": 0.04}
CLASSES = np.array([0.51, 0.18, 0.14, 0.07, 0.06, 0.04])  # shares, as of the purposes of citations
HARDER = np.array([0.5, 0.0, 0.0, -0.8, -0.8, -1.0])  # level of the rows of a class
DIFFICULTY, WAY_ROW, SEED_ROW = 2.0, 0.6, 0.8  # standard deviations
LEVEL = 2.0
TOTAL = math.sqrt(DIFFICULTY**2 + WAY_ROW**2 + SEED_ROW**2)
SLOPE = 0.28 / TOTAL  # of the accuracy near 0.8, by the level
RESAMPLES = 300
SETS_AT_ONCE = 10


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    metric: str
    rows: int
    seeds: int
    spread: str

    def sets(self, rng: np.random.Generator, gains: np.ndarray) -> dict[str, dict[int, RowParts]]:
        """Return the runs of all ways on one test set."""
        gold = rng.choice(len(CLASSES), self.rows, p=CLASSES)
        hard = DIFFICULTY * rng.normal(size=self.rows) + HARDER[gold]
        other = wrong_class(rng, gold)
        made: dict[str, dict[int, RowParts]] = {}
        for way, gain in zip(WAYS, gains, strict=True):
            own = hard + WAY_ROW * rng.normal(size=self.rows) + LEVEL + gain / SLOPE
            made[way] = {}
            for seed in range(self.seeds):
                level = rng.normal(0, SEED_SPREAD[self.spread] / SLOPE)
                right = own + level + SEED_ROW * rng.normal(size=self.rows) > 0
                made[way][seed] = self.parts(gold, np.where(right, gold, other))
        return made

    def parts(self, gold: np.ndarray, found: np.ndarray) -> RowParts:
        return row_parts.ratio(gold == found) if self.metric == "accuracy" else row_parts.class_macro_f1(gold, found)

    def truth(self, gains: np.ndarray) -> np.ndarray:
        """Return the true score of each way: the mean over seeds, with as good as infinitely many rows."""
        rng = np.random.default_rng(1)
        rows = 200_000
        gold = rng.choice(len(CLASSES), rows, p=CLASSES)
        hard = HARDER[gold] + LEVEL + TOTAL * rng.normal(size=rows)
        other = wrong_class(rng, gold)
        levels = SEED_SPREAD[self.spread] / SLOPE * np.array([-1.5, -0.5, 0.5, 1.5]) / math.sqrt(1.25)
        return np.array([np.mean([row_parts.score(self.parts(gold, np.where(hard + gain / SLOPE + level > 0, gold, other)))[0]
                                  for level in levels]) for gain in gains])


def wrong_class(rng: np.random.Generator, gold: np.ndarray) -> np.ndarray:
    """Return the class that each row gets where it is wrong: another one, a frequent one more often."""
    other = rng.choice(len(CLASSES), len(gold), p=CLASSES)
    return np.where(other == gold, (gold + 1) % len(CLASSES), other)


def samples(case: Case, gains: np.ndarray, count: int, seed: int) -> Iterator[Resampled]:
    """Yield the resampled scores of `count` sets. Several sets share the drawn rows, which do not depend on what is in them."""
    rng = np.random.default_rng(seed)
    for begin in range(0, count, SETS_AT_ONCE):
        sets = [case.sets(rng, gains) for _ in range(min(SETS_AT_ONCE, count - begin))]
        both = resample({f"{number}{way}": runs for number, ways in enumerate(sets) for way, runs in ways.items()},
                        resamples=RESAMPLES, seed=seed + begin)
        for number in range(len(sets)):
            scores = {way: both.scores[f"{number}{way}"] for way in WAYS}
            columns = {(way, one): both.columns[f"{number}{way}", one] for way in WAYS for one in range(case.seeds)}
            yield Resampled(scores, both.resampled, columns)


def naive_interval(sample: Resampled, way: str, rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile interval of a bootstrap that draws rows and seeds with replacement."""
    seeds = list(sample.scores[way])
    differences = np.stack([sample.resampled[:, sample.columns[way, seed]] - sample.resampled[:, sample.columns["base", seed]]
                            for seed in seeds], 1)
    drawn = rng.integers(0, len(seeds), differences.shape)
    low, high = np.quantile(np.take_along_axis(differences, drawn, 1).mean(1), [0.025, 0.975])
    return float(low), float(high)


def measure(case: Case, sets: int, seed: int) -> dict[str, float]:
    """Return the shares that the module's first lines describe."""
    counts = {name: [] for name in ("cover", "naive", "false", "found", "best")}
    rng = np.random.default_rng(seed)
    for gains in (np.zeros(len(WAYS)), GAINS):
        truth = case.truth(gains)
        for sample in samples(case, gains, sets, seed):
            found: list[Difference] = compare_with_base(sample, "base")
            for one, true in zip(found, truth[1:] - truth[0], strict=True):
                counts["cover"].append(one.low <= true <= one.high)
                low, high = naive_interval(sample, one.way, rng)
                counts["naive"].append(low <= true <= high)
            if gains.any():
                counts["found"].append(found[-1].p_holm < 0.05)
                best, others = not_distinguishable_from_best(sample)
                counts["best"].append(WAYS[-1] in (best, *others))
            else:
                counts["false"].append(any(one.p_holm < 0.05 for one in found))
    return {name: float(np.mean(values)) for name, values in counts.items()}


def check_quantiles() -> None:
    """Print how often a difference of nothing is beyond the quantile, if rows contribute R and each seed 1 to the variance."""
    from scipy.special import ndtri, stdtrit

    rng = np.random.default_rng(0)
    draws = 400_000
    print(f"{'seeds':<6}{'R':>7}{'5 %':>9}{'0.625 %':>9}{'Cochran':>10}{'':>9}{'Satterthwaite':>15}")
    for seeds in (2, 3, 5):
        for rows in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
            spread = rng.chisquare(seeds - 1, draws) / (seeds - 1) / seeds
            ratio = np.abs(rng.normal(0, math.sqrt(rows + 1 / seeds), draws)) / np.sqrt(rows + spread)
            share = spread / (rows + spread)
            found = []
            for p in (0.05, 0.00625):
                cochran = (1 - share) * -ndtri(p / 2) + share * -stdtrit(seeds - 1, p / 2)
                satterthwaite = -stdtrit((seeds - 1) / share**2, p / 2)
                found.append([(ratio > limit).mean() / p for limit in (quantile(p, share, seeds), cochran, satterthwaite)])
            own, others, third = zip(*found, strict=True)
            print(f"{seeds:<6}{rows:>7g}{own[0]:>9.2f}{own[1]:>9.2f}{others[0]:>10.2f}{others[1]:>9.2f}{third[0]:>9.2f}{third[1]:>6.2f}")


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sets", type=int, default=200, help="simulated test sets of each case, with and without differences")
    flags.add_argument("--rows", default="139,500,3000", help="sizes of the test sets")
    flags.add_argument("--seeds", default="3,5", help="numbers of seeds")
    flags.add_argument("--metrics", default="accuracy,macro_f1")
    flags.add_argument("--spreads", default=",".join(SEED_SPREAD))
    flags.add_argument("--quantiles", action="store_true")
    given = flags.parse_args()
    if given.quantiles:
        check_quantiles()
        return 0
    cases = [Case(metric, rows, seeds, spread) for metric in given.metrics.split(",") for rows in map(int, given.rows.split(","))
             for seeds in map(int, given.seeds.split(",")) for spread in given.spreads.split(",")]
    print(f"{given.sets} sets with and {given.sets} without differences per line, 8 ways against base, {RESAMPLES} resamples\n")
    print(f"{'metric':<10}{'rows':>6}{'seeds':>7}  {'spread':<8}{'cover':>8}{'naive':>8}{'false':>8}{'found':>8}{'best':>8}{'s':>7}")
    all_found = []
    for number, case in enumerate(cases):
        began = time.perf_counter()
        found = measure(case, given.sets, number)
        all_found.append(found)
        shares = "".join(f"{100 * value:>7.1f}%" for value in found.values())
        print(f"{case.metric:<10}{case.rows:>6,}{case.seeds:>7}  {case.spread:<8}{shares}{time.perf_counter() - began:>7.0f}", flush=True)
    cover = [found["cover"] for found in all_found]
    false = [found["false"] for found in all_found]
    print(f"\ncoverage {100 * min(cover):.1f} to {100 * max(cover):.1f} %, mean {100 * float(np.mean(cover)):.1f} %;"
          f" false positives at most {100 * max(false):.1f} %, mean {100 * float(np.mean(false)):.1f} %"
          f" (standard error of one line at 5 %: {100 * math.sqrt(0.05 * 0.95 / given.sets):.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
