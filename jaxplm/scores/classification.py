"""Scores of classification, from counts: one label a text, or any number of them.

Definitions are scikit-learn's. A share of nothing is NaN: a precision where nothing was predicted, any score of no texts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

UNSEEN = "(not in training)"


class ClassScore(NamedTuple):
    """One class, or one type of entity. Shares between 0 and 1; `support` counts it in the gold labels."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def confusion(gold: Any, predicted: Any, classes: int) -> np.ndarray:
    """Counts of (gold, predicted). They add up over batches and processes.

    Args:
      gold: [n] int, 0 to C - 1, or -1 for a label that training never saw and the model cannot give.
      predicted: [n] int, 0 to C - 1.
      classes: C.

    Returns:
      [C + 1, C] int64: rows are gold classes, columns predicted ones. The last row holds the gold labels of -1, all
      labels that training never saw as one class. Every score counts them as errors.

    Raises:
      ValueError: lengths that differ, or a label out of range.
    """
    gold, predicted = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    if gold.shape != predicted.shape or gold.ndim != 1:
        raise ValueError(f"gold {gold.shape} and predicted {predicted.shape} must be of one length")
    if gold.size and not (-1 <= gold.min() and gold.max() < classes and 0 <= predicted.min() and predicted.max() < classes):
        raise ValueError(f"labels must lie between 0 and {classes - 1}, gold ones may be -1")
    cells = np.where(gold < 0, classes, gold) * classes + predicted
    return np.bincount(cells, minlength=(classes + 1) * classes).reshape(classes + 1, classes)


def classification_scores(counts: np.ndarray) -> dict[str, float]:
    """{'accuracy', 'micro_f1', 'macro_f1', 'mcc'} of one label a text.

    With one label a text micro-F1 is the accuracy; it has its own name because tasks such as ChemProt are compared by
    it. Macro-F1 is the mean over the classes that occur in gold or predicted, scikit-learn's default; labels that
    training never saw are one class of F1 0. MCC is that of several classes (Gorodkin 2004), 0 where gold or predicted
    has only one.

    Args:
      counts: [C + 1, C] of `confusion`.
    """
    total = int(counts.sum())
    if not total:
        return dict.fromkeys(("accuracy", "micro_f1", "macro_f1", "mcc"), float("nan"))
    hits, gold, predicted = _margins(counts)
    accuracy = float(hits.sum() / total)
    return {"accuracy": accuracy, "micro_f1": accuracy, "macro_f1": float(np.nanmean(_f1(hits, gold, predicted))),
            "mcc": _matthews(hits, gold, predicted)}  # fmt: skip


def per_class(counts: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each class, in the order of the classes.

    Args:
      counts: [C + 1, C] of `confusion`.
      names: [C].

    Returns:
      C rows, and one more named '(not in training)' where gold labels of -1 were counted. NaN as in scikit-learn with
      `zero_division=nan`.
    """
    hits, gold, predicted = _margins(counts)
    rows = class_scores([*names, UNSEEN], hits, gold, predicted)
    return rows if gold[-1] else rows[:-1]


def class_scores(names: Sequence[str], hits: np.ndarray, gold: np.ndarray, predicted: np.ndarray) -> list[ClassScore]:
    """A row for each class from its counts, each [C]: right ones, gold ones, predicted ones."""
    columns = (_share(hits, predicted), _share(hits, gold), _f1(hits, gold, predicted), gold)
    return [
        ClassScore(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    ]


def multilabel_scores(gold: Any, predicted: Any) -> dict[str, float]:
    """{'accuracy', 'micro_f1', 'macro_f1'} of any number of labels a text.

    Accuracy is the share of texts with exactly the right labels. Macro-F1 is the mean over all columns of
    `gold`, those that never occur with F1 0, scikit-learn's default for label indicators. Micro-F1 is 0 where no label occurs at all.

    Args:
      gold: [n, C] bool. It may have columns beyond those of `predicted`: labels that training never saw, which nothing
        can predict. They count as missed.
      predicted: [n, C] bool.

    Raises:
      ValueError: shapes that do not fit.
    """
    hits, gold, predicted = _indicators(gold, predicted)
    if not len(gold):
        return dict.fromkeys(("accuracy", "micro_f1", "macro_f1"), float("nan"))
    sums = hits.sum(0), gold.sum(0), predicted.sum(0)
    micro = _f1(*(each.sum(keepdims=True) for each in sums))
    return {"accuracy": float((gold == predicted).all(1).mean()), "micro_f1": float(np.nan_to_num(micro)[0]),
            "macro_f1": float(np.nan_to_num(_f1(*sums)).mean())}  # fmt: skip


def multilabel_per_class(gold: Any, predicted: Any, names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each label; `gold` and `predicted` as in `multilabel_scores`, a name for each column of gold."""
    hits, gold, predicted = _indicators(gold, predicted)
    return class_scores(names, hits.sum(0), gold.sum(0), predicted.sum(0))


def _indicators(gold: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(both, gold, predicted), each [n, C] bool with the columns of gold."""
    gold, predicted = np.asarray(gold, bool), np.asarray(predicted, bool)
    if gold.ndim != 2 or predicted.ndim != 2 or len(gold) != len(predicted) or gold.shape[1] < predicted.shape[1]:
        raise ValueError(f"gold {gold.shape} and predicted {predicted.shape} must be [n, C], gold with as many columns or more")
    predicted = np.pad(predicted, ((0, 0), (0, gold.shape[1] - predicted.shape[1])))
    return gold & predicted, gold, predicted


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(right, gold, predicted), each [C + 1] int64, from [C + 1, C]."""
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] + 1:
        raise ValueError(f"counts {counts.shape} must be [C + 1, C], as `confusion` gives them")
    return np.append(np.diagonal(counts), 0), counts.sum(1), np.append(counts.sum(0), 0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _f1(hits: np.ndarray, gold: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN); NaN where a class is neither in gold nor predicted."""
    return _share(2 * hits, gold + predicted)


def _matthews(hits: np.ndarray, gold: np.ndarray, predicted: np.ndarray) -> float:
    hits, gold, predicted = (each.astype(np.float64) for each in (hits, gold, predicted))
    total = gold.sum()
    spread = (total**2 - gold @ gold) * (total**2 - predicted @ predicted)
    return float((hits.sum() * total - gold @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0
