"""Scores of regression: how well predicted numbers agree with the gold ones."""

from typing import Any

import numpy as np


def regression_scores(gold: Any, predicted: Any) -> dict[str, float]:
    """{'pearson', 'spearman', 'mse'}.

    Spearman's correlation is Pearson's of the ranks, equal values sharing the mean of theirs. Both are NaN where one
    side is constant, or with fewer than two numbers. A number that is not finite makes all three NaN.

    Args:
      gold: [n].
      predicted: [n].

    Raises:
      ValueError: lengths that differ.
    """
    gold, predicted = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    if gold.shape != predicted.shape or gold.ndim != 1:
        raise ValueError(f"gold {gold.shape} and predicted {predicted.shape} must be of one length")
    if not gold.size or not (np.isfinite(gold).all() and np.isfinite(predicted).all()):
        return dict.fromkeys(("pearson", "spearman", "mse"), float("nan"))
    return {"pearson": _pearson(gold, predicted), "spearman": _pearson(_ranks(gold), _ranks(predicted)),
            "mse": float(np.mean((gold - predicted) ** 2))}  # fmt: skip


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    directions = []
    for values in (x, y):
        if (values == values[0]).all():  # not left to the arithmetic: the mean of equal numbers may be off by a rounding
            return float("nan")
        offset = values - values.mean()
        offset /= np.abs(offset).max()  # so that squares neither vanish nor overflow
        directions.append(offset / np.sqrt(offset @ offset))
    return float(np.clip(directions[0] @ directions[1], -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """[n] ranks from 0; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - count + last - 1) / 2)[place]
