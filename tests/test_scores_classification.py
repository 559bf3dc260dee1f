"""Scores of classification and regression against scikit-learn and SciPy."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.scores.classification import UNSEEN, classification_scores, confusion, multilabel_per_class, multilabel_scores, per_class
from jaxplm.scores.names import title, words
from jaxplm.scores.regression import regression_scores


@st.composite
def labelled(draw, lowest: int = 0):
    classes = draw(st.integers(1, 6))
    pairs = draw(st.lists(st.tuples(st.integers(lowest, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40))
    gold, predicted = np.asarray(pairs).T
    return classes, gold, predicted


@st.composite
def indicators(draw):
    rows, classes = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    rates = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return tuple(random.random((rows, classes)) < rate for rate in rates)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(labelled(lowest=-1))
def test_one_label(case) -> None:
    """-1 stands for a label that training never saw, which scikit-learn counts as one more class."""
    classes, gold, predicted = case
    counts = confusion(gold, predicted, classes)
    assert counts.dtype == np.int64 and counts.shape == (classes + 1, classes)
    order = [*range(classes), -1]
    np.testing.assert_array_equal(counts, _quiet(reference.confusion_matrix, gold, predicted, labels=order)[:, :-1])
    expected = {
        "accuracy": reference.accuracy_score(gold, predicted),
        "micro_f1": reference.f1_score(gold, predicted, average="micro"),
        "macro_f1": reference.f1_score(gold, predicted, average="macro"),
        "mcc": _quiet(reference.matthews_corrcoef, gold, predicted),
    }
    assert classification_scores(counts) == pytest.approx(expected, abs=1e-12)

    rows = per_class(counts, [f"c{i}" for i in range(classes)])
    assert [row.name for row in rows] == [f"c{i}" for i in range(classes)] + [UNSEEN] * bool((gold == -1).any())
    found = np.asarray([row[1:] for row in rows]).T
    table = _quiet(reference.precision_recall_fscore_support, gold, predicted, labels=order[: len(rows)], zero_division=np.nan)
    for mine, theirs in zip(found, table, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(labelled(lowest=-1), st.integers(0, 40))
def test_counts_add_up(case, cut: int) -> None:
    classes, gold, predicted = case
    parts = confusion(gold[:cut], predicted[:cut], classes) + confusion(gold[cut:], predicted[cut:], classes)
    np.testing.assert_array_equal(parts, confusion(gold, predicted, classes))


def test_unseen_labels_are_wrong() -> None:
    scores = classification_scores(confusion([0, 1, -1, -1], [0, 1, 0, 1], 2))
    assert scores["accuracy"] == scores["micro_f1"] == 0.5
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_no_texts() -> None:
    empty = confusion([], [], 3)
    assert empty.shape == (4, 3) and not empty.any()
    assert all(math.isnan(value) for value in classification_scores(empty).values())
    assert all(math.isnan(row.f1) and row.support == 0 for row in per_class(empty, "abc"))
    none = np.zeros((0, 2), bool)
    assert all(math.isnan(value) for value in multilabel_scores(none, none).values())


@pytest.mark.parametrize(("gold", "predicted"), [([0, 1], [0]), ([2], [0]), ([-2], [0]), ([0], [-1]), ([0], [2])])
def test_labels_that_cannot_be(gold: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError):
        confusion(gold, predicted, 2)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(indicators())
def test_many_labels(case) -> None:
    gold, predicted = case
    expected = {
        "accuracy": reference.accuracy_score(gold, predicted),
        "micro_f1": reference.f1_score(gold, predicted, average="micro", zero_division=0),
        "macro_f1": reference.f1_score(gold, predicted, average="macro", zero_division=0),
    }
    if gold.shape[1] == 1:  # scikit-learn takes one column for one label a text
        expected |= {name: reference.f1_score(gold.ravel(), predicted.ravel(), zero_division=0) for name in ("micro_f1", "macro_f1")}
    assert multilabel_scores(gold, predicted) == pytest.approx(expected, abs=1e-12)
    rows = multilabel_per_class(gold, predicted, [str(i) for i in range(gold.shape[1])])
    for column, row in enumerate(rows):
        theirs = reference.precision_recall_fscore_support(
            gold[:, column], predicted[:, column], labels=[1], average=None, zero_division=np.nan
        )
        np.testing.assert_allclose(row[1:], [each[0] for each in theirs], atol=1e-12)


def test_many_labels_that_training_never_saw() -> None:
    gold = np.asarray([[1, 0, 1], [0, 1, 0]], bool)
    scores = multilabel_scores(gold, gold[:, :2])
    assert scores == multilabel_scores(gold, np.asarray([[1, 0, 0], [0, 1, 0]], bool))
    assert scores["accuracy"] == 0.5 and scores["micro_f1"] == pytest.approx(0.8) and scores["macro_f1"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError):
        multilabel_scores(gold[:, :2], gold)


numbers = st.floats(-1e6, 1e6, width=32)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.integers(0, 3), numbers), st.one_of(st.integers(0, 3), numbers)), min_size=2, max_size=30))
def test_regression(pairs) -> None:
    gold, predicted = np.asarray(pairs, np.float64).T
    found = regression_scores(gold, predicted)
    assert found["mse"] == pytest.approx(reference.mean_squared_error(gold, predicted), rel=1e-12)
    constant = len(set(gold)) == 1 or len(set(predicted)) == 1
    for name, method in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        if constant:
            assert math.isnan(found[name])
        else:
            assert found[name] == pytest.approx(_quiet(method, gold, predicted).statistic, abs=1e-7)
            assert -1 <= found[name] <= 1


def test_regression_at_the_edges() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(regression_scores([0.1] * 3, [1, 2, 3])["pearson"])  # the mean of three 0.1 is not 0.1
        assert math.isnan(regression_scores([1], [2])["spearman"]) and regression_scores([1], [2])["mse"] == 1
        assert all(math.isnan(value) for value in regression_scores([], []).values())
        assert all(math.isnan(value) for value in regression_scores([1, math.inf, 3], [1, math.inf, 2]).values())
        assert regression_scores([1e-200, 2e-200, 3e-200], [1e90, 2e90, 3e90])["pearson"] == pytest.approx(1)
    assert regression_scores([1, 2, 2, 3], [1, 5, 5, 9])["spearman"] == pytest.approx(1)
    with pytest.raises(ValueError):
        regression_scores([1, 2], [1])


def test_how_names_are_written() -> None:
    assert [words(name) for name in ("macro_f1", "mcc", "exact_match", "loss")] == ["macro-F1", "MCC", "exact match", "loss"]
    assert title("micro_f1") == "Micro-F1" and title("f1") == "F1"


def _quiet(method, *arguments, **options):
    """The references warn of absent classes and nearly constant numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return method(*arguments, **options)
