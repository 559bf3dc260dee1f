"""Scores recomputed from parts of rows equal the scores of the repeated rows, and those of metrics.jsonl."""

import json

import numpy as np
import pytest

from jaxplm.scores import row_parts
from jaxplm.scores.classification import classification_scores, confusion, multilabel_scores
from jaxplm.scores.entities import entity_counts, entity_scores
from jaxplm.scores.regression import regression_scores
from jaxplm.scores.row_parts import RowParts, Scores, score

CLASSES = 4


def draws(rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(20)])


def check(parts: RowParts, weights: np.ndarray, scorer) -> None:
    """`scorer` gives the score of the rows of an index; it is called on rows that are repeated."""
    rows = np.arange(len(parts))
    expected = [scorer(np.repeat(rows, one)) for one in weights]
    for one in (parts, RowParts.from_json(json.loads(json.dumps(parts.to_json())))):
        np.testing.assert_allclose(score(one, weights), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "seed"), [(3, 0), (8, 1), (60, 2)])
def test_one_label(rows, seed):
    """-1 is a label that training never saw; on three rows, classes come and go."""
    rng = np.random.default_rng(seed)
    gold, found = rng.integers(-1, CLASSES, rows), rng.integers(0, CLASSES, rows)
    for name, parts in (("accuracy", row_parts.ratio(gold == found)), ("macro_f1", row_parts.class_macro_f1(gold, found)),
                        ("mcc", row_parts.mcc(gold, found))):
        check(parts, draws(rows, seed), lambda index, name=name: classification_scores(confusion(gold[index], found[index], CLASSES))[name])


def test_any_number_of_labels():
    rng = np.random.default_rng(0)
    gold, found = rng.random((2, 12, CLASSES)) < 0.2
    for name, parts in (("accuracy", row_parts.ratio((gold == found).all(1))),
                        ("micro_f1", row_parts.ratio(2 * (gold & found).sum(1), gold.sum(1) + found.sum(1))),
                        ("macro_f1", row_parts.macro_f1(gold & found, found, gold, absent=True))):
        check(parts, draws(12, 0), lambda index, name=name: multilabel_scores(gold[index], found[index])[name])


@pytest.mark.parametrize("seed", range(4))
def test_numbers(seed):
    """Ranks are those of the repeated rows, ties included; a sample of one number has no correlation."""
    rng = np.random.default_rng(seed)
    rows = (2, 5, 30, 200)[seed]
    gold, found = rng.integers(0, 6, rows).astype(float), rng.normal(size=rows).round(1)
    for name, parts in (("mse", row_parts.ratio((gold - found) ** 2)), ("pearson", row_parts.pearson(gold, found)),
                        ("spearman", row_parts.spearman(gold, found))):
        check(parts, draws(rows, seed), lambda index, name=name: regression_scores(gold[index], found[index])[name])


def test_entities():
    """A sequence that breaks its scheme differs in `f1` and `strict_f1`."""
    rng = np.random.default_rng(0)
    tags = np.array(["O", "B-a", "I-a", "B-b", "I-b"])
    gold, found = ([tags[rng.integers(0, 5, size)].tolist() for size in (3, 1, 6, 9, 2, 4)] for _ in range(2))
    gold, found = gold, [[*one, *["O"] * 9][: len(other)] for one, other in zip(found, gold, strict=True)]
    conll, strict = (entity_counts(gold, found, scheme) for scheme in ("", "IOB2"))
    assert (conll != strict).any()
    for name, parts in (("f1", row_parts.ratio(2 * conll[:, 0], conll[:, 1] + conll[:, 2])),
                        ("strict_f1", row_parts.ratio(2 * strict[:, 0], strict[:, 1] + strict[:, 2])),
                        ("precision", row_parts.ratio(conll[:, 0], conll[:, 2])), ("recall", row_parts.ratio(conll[:, 0], conll[:, 1]))):
        check(parts, draws(6, 0), lambda index, name=name: entity_scores([gold[i] for i in index], [found[i] for i in index], "IOB2")[name])


def test_several_runs_at_once():
    rng = np.random.default_rng(0)
    runs = [row_parts.ratio(rng.random(9) < 0.5), row_parts.mcc(rng.integers(0, 3, 9), rng.integers(0, 3, 9)),
            row_parts.spearman(rng.random(9), rng.random(9)), row_parts.ratio(rng.random(9))]
    weights = draws(9, 0)
    np.testing.assert_allclose(Scores(runs)(weights), np.stack([score(one, weights) for one in runs], 1), rtol=1e-12)
    assert np.isnan(Scores(runs)(np.zeros((1, 9)))).all(), "nothing is left"


def test_what_is_no_part():
    with pytest.raises(ValueError, match="'mode'"):
        RowParts("mode", np.zeros((2, 2)))
    with pytest.raises(ValueError, match="numbers"):
        RowParts("ratio", np.zeros(2))
    with pytest.raises(ValueError, match="2, 3 rows"):
        Scores([row_parts.ratio(np.ones(2)), row_parts.ratio(np.ones(3))])
    with pytest.raises(ValueError, match="weights"):
        score(row_parts.ratio(np.ones(2)), np.ones((1, 3)))
