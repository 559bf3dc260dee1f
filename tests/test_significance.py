"""Differences between ways: intervals, p-values and Holm's correction against formulas and planted data."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxplm.scores import row_parts
from jaxplm.scores.significance import Difference, compare_with_base, draw_rows, holm, not_distinguishable_from_best, resample

ROWS = 400


def ways_of(rates: dict[str, float], seeds: int, *, spread: float = 0.0, seed: int = 0, rows: int = ROWS):
    """Return accuracies: rows differ in how hard they are, and seeds by `spread`."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.3, rows)
    return {way: {one: row_parts.ratio(rng.random(rows) < rate + hard + rng.normal(0, spread)) for one in range(seeds)}
            for way, rate in rates.items()}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    found = holm([math.nan, 0.02, 0.03])
    assert math.isnan(found[0]) and found[1:] == pytest.approx([0.04, 0.04])


def test_one_seed_is_the_test_of_paired_rows():
    """With one seed, only rows vary: the interval is that of the mean of the rows' differences."""
    ways = ways_of({"base": 0.6, "dapt": 0.7}, 1)
    (found,) = compare_with_base(resample(ways), "base")
    rows = ways["dapt"][0].values[:, 0] - ways["base"][0].values[:, 0]
    assert found.mean == pytest.approx(rows.mean()) and found.seeds == 1
    half = stats.norm.isf(0.025) * rows.std(ddof=1) / math.sqrt(ROWS)
    assert (found.low, found.high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.03 * half)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(rows.mean()) / rows.std(ddof=1) * math.sqrt(ROWS)), rel=0.2)


def test_seeds_alone_are_the_t_test_of_paired_seeds():
    """Where all rows are alike, resampling changes nothing, and the seeds decide."""
    scores = {"base": [0.70, 0.72, 0.69], "tapt": [0.74, 0.75, 0.76]}
    ways = {way: {seed: row_parts.ratio(np.full(50, value)) for seed, value in enumerate(values)} for way, values in scores.items()}
    (found,) = compare_with_base(resample(ways, resamples=100), "base")
    expected = stats.ttest_rel(scores["tapt"], scores["base"])
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_interval_and_p_value_agree():
    for seed in range(12):
        found = compare_with_base(resample(ways_of({"base": 0.6, "a": 0.6, "b": 0.65, "c": 0.7}, 3, spread=0.02, seed=seed), resamples=500),
                                  "base")
        for one in found:
            assert (one.p < 0.05) == (not one.low <= 0 <= one.high)
            assert one.low < one.mean < one.high and one.p <= one.p_holm <= 1


def test_the_same_rows_and_seeds_for_all_ways():
    """A way that is base plus a little on every row differs clearly, although rows and seeds vary far more."""
    rng = np.random.default_rng(0)
    base = {seed: rng.random(ROWS) + rng.normal(0, 0.1) for seed in range(3)}
    ways = {"base": {seed: row_parts.ratio(values) for seed, values in base.items()},
            "same": {seed: row_parts.ratio(values) for seed, values in base.items()},
            "better": {seed: row_parts.ratio(values + rng.normal(0.01, 0.01, ROWS)) for seed, values in base.items()}}
    same, better = compare_with_base(resample(ways, resamples=1000), "base")
    assert same == Difference("same", 0.0, 0.0, 0.0, 1.0, 1.0, 3)
    assert 0.007 < better.low < 0.01 < better.high < 0.013 and better.p_holm < 0.01


def test_seeds_are_matched_by_their_numbers():
    ways = ways_of({"base": 0.6, "a": 0.7}, 4)
    less = {"base": ways["base"], "a": {seed: ways["a"][seed] for seed in (3, 1)}}
    (found,) = compare_with_base(resample(less, resamples=200), "base")
    assert found.seeds == 2
    expected = np.mean([ways["a"][seed].values[:, 0].mean() - ways["base"][seed].values[:, 0].mean() for seed in (1, 3)])
    assert found.mean == pytest.approx(expected)


def test_a_way_without_runs():
    ways = ways_of({"base": 0.6, "a": 0.9}, 3) | {"failed": {}}
    first, failed = compare_with_base(resample(ways, resamples=200), "base")
    assert failed.way == "failed" and failed.seeds == 0
    assert all(math.isnan(value) for value in (failed.mean, failed.low, failed.high, failed.p, failed.p_holm))
    assert first.p_holm == first.p < 0.01, "it is no test"
    assert not_distinguishable_from_best(resample(ways, resamples=200)) == ("a", [])
    assert not_distinguishable_from_best(resample({"failed": {}})) == ("", [])
    assert compare_with_base(resample({"base": ways["base"]}, resamples=10), "base") == []


def test_who_cannot_be_told_from_the_best():
    ways = ways_of({"low": 0.3, "a": 0.7, "b": 0.72}, 3)
    best, others = not_distinguishable_from_best(resample(ways, resamples=500))
    assert {best, *others} == {"a", "b"}
    assert not_distinguishable_from_best(resample(ways, resamples=500), higher_is_better=False) == ("low", [])


def test_the_result_follows_from_the_seed():
    ways = ways_of({"base": 0.6, "a": 0.65}, 3)
    one, same, other = (compare_with_base(resample(ways, resamples=100, seed=seed), "base")[0] for seed in (1, 1, 2))
    assert one == same != other


def test_draws():
    found = draw_rows(np.random.default_rng(0), 2000, 7)
    assert found.shape == (2000, 7) and (found.sum(1) == 7).all()
    assert found.mean(0) == pytest.approx(1, abs=0.1) and found.var(0) == pytest.approx(6 / 7, abs=0.12)


def test_correlations_that_some_samples_do_not_have():
    """Two rows: half of the samples have one number twice, and no correlation."""
    values = {"base": [1.0, 2.0], "a": [2.0, 1.0]}
    ways = {way: {0: row_parts.pearson([0.0, 1.0], found)} for way, found in values.items()}
    (found,) = compare_with_base(resample(ways, resamples=100), "base")
    assert found.mean == pytest.approx(-2.0) and not math.isnan(found.p)
