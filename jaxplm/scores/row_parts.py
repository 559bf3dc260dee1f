"""What a test set's score is made of, row by row, so that it can be recomputed for any weights of the rows.

A weight says how often a row counts: all ones for the set as it is, how often it was drawn for a bootstrap sample. Shapes: n rows,
B samples, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_EXACT = 1 << 24  # float32 holds every integer up to this


@dataclass(frozen=True, eq=False)
class RowParts:
    """The parts of one score of one model on a test set.

    Attributes:
      formula: how the score follows from `values`, one of `FORMULAS`.
      values: [n, K]; what the K columns are depends on the formula. They are integers where the parts are counts or classes.
    """

    formula: str
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.formula not in FORMULAS:
            raise ValueError(f"formula {self.formula!r}: must be one of {', '.join(FORMULAS)}")
        if self.values.ndim != 2 or self.values.dtype.kind not in "iuf":
            raise ValueError(f"values of shape {self.values.shape} and type {self.values.dtype} must be [n, K] numbers")

    def __len__(self) -> int:
        return len(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return the parts as JSON has them."""
        return {"formula": self.formula, "values": self.values.tolist()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "RowParts":
        """Return what `to_json` was made of."""
        values = np.array(found["values"])
        return cls(found["formula"], values if values.ndim == 2 else values.reshape(0, 0).astype(np.int64))


# ---------------------------------------------------------------- making parts


def ratio(numerators: ArrayLike, denominators: ArrayLike = 1) -> RowParts:
    """Return the parts of a sum of [n] numerators over a sum of [n] denominators, 0 where the latter is 0.

    With denominators of 1 it is a mean: accuracy, exact match, the mean squared error. F1 over all classes or entities is
    2 · right / (predicted + gold).
    """
    numerators = np.asarray(numerators)
    parts = np.stack([numerators, np.broadcast_to(denominators, numerators.shape)], 1)
    return RowParts("ratio", parts.astype(np.int64) if parts.dtype.kind in "biu" else parts.astype(np.float64))


def class_macro_f1(gold: ArrayLike, predicted: ArrayLike) -> RowParts:
    """Return the parts of the mean F1 of the classes that occur in gold or predicted; one class per row.

    Args:
      gold: [n] int, -1 for a class that no model can predict.
      predicted: [n] int.
    """
    return RowParts("class_macro_f1", np.stack([np.asarray(gold, np.int64), np.asarray(predicted, np.int64)], 1))


def mcc(gold: ArrayLike, predicted: ArrayLike) -> RowParts:
    """Return the parts of Matthews' correlation; arguments as in `class_macro_f1`."""
    return RowParts("mcc", class_macro_f1(gold, predicted).values)


def macro_f1(right: ArrayLike, predicted: ArrayLike, gold: ArrayLike, *, absent: bool) -> RowParts:
    """Return the parts of the mean F1 of classes that a row may have any number of.

    Args:
      right, predicted, gold: [n, C], how often each class is right, is predicted and is there.
      absent: whether classes that occur neither in gold nor in predicted count, with an F1 of 0.
    """
    parts = np.concatenate([np.asarray(part, np.int64) for part in (right, predicted, gold)], 1)
    return RowParts("label_macro_f1" if absent else "macro_f1", parts)


def pearson(gold: ArrayLike, predicted: ArrayLike) -> RowParts:
    """Return the parts of Pearson's correlation of [n] numbers."""
    return RowParts("pearson", np.stack([np.asarray(gold, np.float64), np.asarray(predicted, np.float64)], 1))


def spearman(gold: ArrayLike, predicted: ArrayLike) -> RowParts:
    """Return the parts of Spearman's correlation of [n] numbers."""
    return RowParts("spearman", pearson(gold, predicted).values)


# ---------------------------------------------------------------- scores


def score(parts: RowParts, weights: ArrayLike | None = None) -> np.ndarray:
    """Return [B] scores for [B, n] weights; without weights, the score of the set as it is, [1]."""
    return Scores([parts])(np.ones((1, len(parts))) if weights is None else weights)[:, 0]


class Scores:
    """The scores of several runs on one test set, for any weights of its rows.

    Args:
      runs: R runs on the same n rows.

    Raises:
      ValueError: numbers of rows that differ.
    """

    def __init__(self, runs: Sequence[RowParts]) -> None:
        if len({len(parts) for parts in runs}) > 1:
            raise ValueError(f"parts of {', '.join(str(len(parts)) for parts in runs)} rows: they must be of the same test set")
        made = [FORMULAS[parts.formula](parts.values) for parts in runs]
        self.rows = len(runs[0]) if runs else 0
        self._finish = [finish for _, finish in made]
        self._ends = np.cumsum([0, *(features.shape[1] for features, _ in made)])
        features = np.concatenate([features for features, _ in made], 1) if made else np.zeros((0, 0))
        # Counts are summed in float32 while it holds them exactly.
        self._largest = max(1, int(features.max(initial=0))) if features.dtype.kind in "bi" else 0
        self._features = features.astype(np.float32 if self._largest else np.float64)

    def __call__(self, weights: ArrayLike) -> np.ndarray:
        """Return [B, R] scores, equal to those of a set in which each row is repeated as often as its weight says.

        NaN where a correlation is not defined, and where all weights are 0. Sums over rows are one matrix product for all runs.

        Args:
          weights: [B, n], not negative.
        """
        weights = np.asarray(weights)
        if weights.ndim != 2 or weights.shape[1] != self.rows:
            raise ValueError(f"weights {weights.shape} for {self.rows} rows")
        found = np.full((len(weights), len(self._finish)), np.nan)
        if not weights.size:
            return found
        totals = weights.sum(1, dtype=np.float64)
        whole = weights.dtype.kind in "iu" or (weights % 1 == 0).all()
        kind = np.float32 if whole and self._largest and totals.max() * self._largest < _EXACT else np.float64
        weights = weights.astype(kind)
        sums = (weights @ self._features.astype(kind, copy=False)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            for place, (finish, begin, end) in enumerate(zip(self._finish, self._ends[:-1], self._ends[1:], strict=True)):
                found[:, place] = finish(sums[:, begin:end], totals, weights)
        return found


# ([B, F] weighted sums of the features, [B] sums of the weights, [B, n] weights) → [B] scores
Finish = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Formula = Callable[[np.ndarray], tuple[np.ndarray, Finish]]  # [n, K] values → ([n, F] features, how the score follows from them)


def _ratio(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        share = np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)
        return np.where(totals > 0, share, np.nan)

    return values, finish


def _class_counts(values: np.ndarray) -> np.ndarray:
    """Return [n, 3C]: one-hot of the right class, of the predicted one and of the gold one; the last class is that of -1."""
    gold, predicted = values[:, 0].astype(np.int64), values[:, 1].astype(np.int64)
    count = max(gold.max(initial=-1), predicted.max(initial=-1)) + 2
    classes = np.arange(count)
    gold = np.where(gold < 0, count - 1, gold)
    given, found = gold[:, None] == classes, predicted[:, None] == classes
    return np.concatenate([given & found, found, given], 1).astype(np.int8)


def _class_macro_f1(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    return _macro_f1(_class_counts(values))


def _macro_f1(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        f1, occurs = _f1_of_classes(sums)
        return f1.sum(1) / occurs.sum(1)

    return values, finish


def _label_macro_f1(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.where(totals > 0, _f1_of_classes(sums)[0].mean(1), np.nan)

    return values, finish


def _f1_of_classes(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [B, C] F1, 0 for a class that does not occur, and [B, C] whether it occurs."""
    right, predicted, gold = np.split(sums, 3, axis=1)
    both = predicted + gold
    return np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0), both > 0


def _mcc(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        right, predicted, gold = np.split(sums, 3, axis=1)
        with_gold = totals**2 - (gold**2).sum(1)
        with_predicted = totals**2 - (predicted**2).sum(1)
        both = with_gold * with_predicted
        agreement = right.sum(1) * totals - (predicted * gold).sum(1)
        value = np.divide(agreement, np.sqrt(both), out=np.zeros(len(sums)), where=both > 0)
        return np.where(totals > 0, value, np.nan)

    return _class_counts(values), finish


def _pearson(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    x, y = (values - values.mean(0)).T

    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return _correlation(totals, *sums.T)

    return np.stack([x, y, x * x, y * y, x * y], 1), finish


def _correlation(total: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return [B] correlations from weighted sums, NaN where either side is constant."""
    x_spread, y_spread = xx - x * x / total, yy - y * y / total
    varies = (x_spread > 1e-12 * xx) & (y_spread > 1e-12 * yy)
    return np.where(varies, np.clip((xy - x * y / total) / np.sqrt(x_spread * y_spread), -1, 1), np.nan)


def _spearman(values: np.ndarray) -> tuple[np.ndarray, Finish]:
    ranks = [_Ranks(side) for side in values.T]

    def finish(sums: np.ndarray, totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        middle = ((totals + 1) / 2)[:, None]  # the mean of all ranks
        x, y = (side(weights, middle) for side in ranks)
        wx = weights * x
        xx, xy = np.einsum("bn,bn->b", wx, x), np.einsum("bn,bn->b", wx, y)
        np.multiply(y, y, out=y)
        yy = np.einsum("bn,bn->b", weights, y)
        return np.where((xx > 0) & (yy > 0), np.clip(xy / np.sqrt(xx * yy), -1, 1), np.nan)

    return np.zeros((len(values), 0)), finish


class _Ranks:
    """The ranks of [n] numbers, each repeated as often as its weight says; equal numbers share the mean of their ranks."""

    def __init__(self, numbers: np.ndarray) -> None:
        _, self._group, size = np.unique(numbers, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.cumsum(size) - size

    def __call__(self, weights: np.ndarray, middle: np.ndarray) -> np.ndarray:
        """Return [B, n] ranks for [B, n] weights, less their mean, [B, 1]."""
        size = np.take(weights, self._order, axis=1)
        if len(self._starts) < size.shape[1]:
            size = np.add.reduceat(size, self._starts, axis=1)
        ranks = np.cumsum(size, 1)
        size -= 1
        size /= 2
        ranks -= size
        ranks -= middle
        return np.take(ranks, self._group, axis=1)


FORMULAS: dict[str, Formula] = {
    "ratio": _ratio, "class_macro_f1": _class_macro_f1, "macro_f1": _macro_f1, "label_macro_f1": _label_macro_f1, "mcc": _mcc,
    "pearson": _pearson, "spearman": _spearman,
}
