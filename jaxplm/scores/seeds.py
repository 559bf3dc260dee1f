"""Mean and standard deviation of runs that differ in their seed."""

from collections.abc import Sequence

import numpy as np

from jaxplm.scores.names import SHARES


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return (mean, standard deviation), the latter with n - 1 in the denominator: NaN for a single value, both NaN for none."""
    if len(values) == 0:
        return float("nan"), float("nan")
    found = np.asarray(values, np.float64)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else float("nan")


def format_mean_std(name: str, values: Sequence[float]) -> str:
    """Return '84.2 ± 0.3' for shares, in percent, and '0.512 ± 0.010' for other scores; a single value has no ±."""
    mean, std = mean_std(values)
    return format_score(name, mean) + (f" ± {format_score(name, std)}" if len(values) > 1 else "")


def format_score(name: str, value: float) -> str:
    """Return '84.2' for a share of 0.842, and '0.512' for a score of 0.512 that is no share."""
    return f"{100 * value:.1f}" if name in SHARES else f"{value:.3f}"
