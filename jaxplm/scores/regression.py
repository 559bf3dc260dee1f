"""Scores of regression by SciPy and scikit-learn: how well predicted numbers agree with the gold ones."""

import warnings
from typing import Any

import numpy as np


def regression_scores(gold: Any, predicted: Any) -> dict[str, float]:
    """Return {'pearson', 'spearman', 'mse'}.

    Both correlations are NaN where one side is constant, or with fewer than two numbers. A number that is not finite makes all
    three NaN. SciPy and scikit-learn are imported by the first call: they take a second that pre-training does not need.

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
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    scores = {"pearson": float("nan"), "spearman": float("nan"), "mse": float(mean_squared_error(gold, predicted))}
    if len(gold) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant or nearly constant numbers
            for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
                result: Any = correlation(gold, predicted)
                scores[name] = float(result.statistic)
    return scores
