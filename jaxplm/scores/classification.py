"""Scores of classification by scikit-learn: one label per text, or any number of labels.

A precision of nothing predicted and a recall of nothing to find are NaN per class. scikit-learn is imported by the first call: it
takes a second that pre-training does not need.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

UNSEEN = "(not in training)"

# Values of `zero_division`. scikit-learn has no annotations, and a type checker reads str from the default.
_UNDEFINED: Any = np.nan
_ZERO: Any = 0.0


class ClassScore(NamedTuple):
    """Scores of one class, or of one type of entity. Shares lie between 0 and 1; `support` counts it in the gold labels."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def confusion(gold: Any, predicted: Any, classes: int) -> np.ndarray:
    """Count pairs of (gold, predicted) labels. Counts of several batches or processes can be added up.

    Args:
      gold: [n] int, 0 to C - 1, or -1 for a label that training never saw and the model cannot predict.
      predicted: [n] int, 0 to C - 1.
      classes: C.

    Returns:
      [C + 1, C] int64: rows are gold classes, columns predicted ones. The last row counts all gold labels of -1 as one class.
      Every score counts them as errors.

    Raises:
      ValueError: lengths that differ, or a label out of range.
    """
    from sklearn.metrics import confusion_matrix

    gold, predicted = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    if gold.size and not (-1 <= gold.min() and gold.max() < classes):
        raise ValueError(f"gold labels must lie between -1 and {classes - 1}")
    if predicted.size and not (0 <= predicted.min() and predicted.max() < classes):
        raise ValueError(f"predicted labels must lie between 0 and {classes - 1}")
    if not gold.size and not predicted.size:
        return np.zeros((classes + 1, classes), np.int64)
    return confusion_matrix(gold, predicted, labels=[*range(classes), -1])[:, :classes]


def classification_scores(counts: np.ndarray) -> dict[str, float]:
    """Return {'accuracy', 'micro_f1', 'macro_f1', 'mcc'} of one label per text.

    Micro-F1 equals the accuracy here. It has a name of its own because tasks such as ChemProt are compared by it. Macro-F1 is
    the mean over the classes that occur in gold or predicted; labels that training never saw are one class with an F1 of 0.
    MCC is Matthews' correlation of several classes (Gorodkin 2004), 0 where gold or predicted has a single class.

    Args:
      counts: [C + 1, C] of `confusion`. Without any count all scores are NaN.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    gold, predicted, weight = _pairs(counts)
    if not len(weight):
        return dict.fromkeys(("accuracy", "micro_f1", "macro_f1", "mcc"), float("nan"))
    with _quiet():
        return {
            "accuracy": float(accuracy_score(gold, predicted, sample_weight=weight)),
            "micro_f1": float(f1_score(gold, predicted, average="micro", sample_weight=weight)),
            "macro_f1": float(f1_score(gold, predicted, average="macro", sample_weight=weight)),
            "mcc": float(matthews_corrcoef(gold, predicted, sample_weight=weight)),
        }


def per_class(counts: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """Return precision, recall and F1 of each class, in the order of the classes.

    Args:
      counts: [C + 1, C] of `confusion`.
      names: [C].

    Returns:
      C rows, and one more named '(not in training)' where gold labels of -1 were counted.
    """
    from sklearn.metrics import precision_recall_fscore_support

    gold, predicted, weight = _pairs(counts)
    names = [*names, UNSEEN] if counts[-1].any() else list(names)
    if not len(weight):
        return _unmeasured(names)
    columns = precision_recall_fscore_support(gold, predicted, labels=range(len(names)), sample_weight=weight, zero_division=_UNDEFINED)
    return _rows(names, columns)


def multilabel_scores(gold: Any, predicted: Any) -> dict[str, float]:
    """Return {'accuracy', 'micro_f1', 'macro_f1'} of any number of labels per text.

    Accuracy is the share of texts with exactly the right labels. Macro-F1 is the mean over all columns of `gold`; a label that
    never occurs has an F1 of 0. Micro-F1 is 0 where no label occurs at all. All are NaN without a text.

    Args:
      gold: [n, C] bool. It may have columns beyond those of `predicted`, for labels that training never saw and the model cannot
        predict. They count as missed.
      predicted: [n, C] bool.

    Raises:
      ValueError: shapes that do not fit.
    """
    from sklearn.metrics import accuracy_score, f1_score

    gold, predicted, labels = _indicators(gold, predicted)
    if not len(gold):
        return dict.fromkeys(("accuracy", "micro_f1", "macro_f1"), float("nan"))
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "micro_f1": float(f1_score(gold, predicted, labels=labels, average="micro", zero_division=_ZERO)),
        "macro_f1": float(f1_score(gold, predicted, labels=labels, average="macro", zero_division=_ZERO)),
    }


def multilabel_per_class(gold: Any, predicted: Any, names: Sequence[str]) -> list[ClassScore]:
    """Return precision, recall and F1 of each label; arguments as in `multilabel_scores`, with a name for each column of gold."""
    from sklearn.metrics import precision_recall_fscore_support

    gold, predicted, labels = _indicators(gold, predicted)
    if not len(gold):
        return _unmeasured(names)
    return _rows(names, precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=_UNDEFINED))


def _pairs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (gold, predicted, count) of each cell that holds anything; gold is C for labels that training never saw."""
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] + 1:
        raise ValueError(f"counts {counts.shape} must be [C + 1, C], as `confusion` gives them")
    gold, predicted = np.nonzero(counts)
    return gold, predicted, counts[gold, predicted]


def _indicators(gold: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, range]:
    """Return gold and predicted as [n, C + 1] bool, and the C columns that are labels.

    scikit-learn takes an array of one column for one label per text, so an empty column follows the labels.
    """
    gold, predicted = np.asarray(gold, bool), np.asarray(predicted, bool)
    if gold.ndim != 2 or predicted.ndim != 2 or len(gold) != len(predicted) or gold.shape[1] < predicted.shape[1]:
        raise ValueError(f"gold {gold.shape} and predicted {predicted.shape} must be [n, C], gold with as many columns or more")
    width = gold.shape[1] + 1
    gold, predicted = (np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in (gold, predicted))
    return gold, predicted, range(width - 1)


def _rows(names: Sequence[str], columns: Any) -> list[ClassScore]:
    return [ClassScore(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(names, *columns, strict=True)]


def _unmeasured(names: Sequence[str]) -> list[ClassScore]:
    return [ClassScore(name, float("nan"), float("nan"), float("nan"), 0) for name in names]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence scikit-learn's warning of a single class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
