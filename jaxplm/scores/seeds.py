"""Several runs that differ in their seed: mean and standard deviation, and how they are written."""

from collections.abc import Sequence

import numpy as np

from jaxplm.scores.names import SHARES


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard deviation) with n - 1 in the denominator: NaN of a single value, both of none."""
    if len(values) == 0:
        return float("nan"), float("nan")
    found = np.asarray(values, np.float64)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else float("nan")


def format_mean_std(name: str, values: Sequence[float]) -> str:
    """'84.2 ± 0.3': shares in percent, other scores as they are ('0.512 ± 0.010'); a single value has no ±."""
    mean, std = mean_std(values)
    return format_score(name, mean) + (f" ± {format_score(name, std)}" if len(values) > 1 else "")


def format_score(name: str, value: float) -> str:
    """'84.2' of a share of 0.842; '0.512' of anything else."""
    return f"{100 * value:.1f}" if name in SHARES else f"{value:.3f}"
