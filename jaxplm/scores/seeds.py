"""Several runs that differ in their seed: mean, standard deviation, and the table that shows them."""

from collections.abc import Mapping, Sequence

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


def seed_table(runs: Mapping[int, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Rows of text for a table: a heading, one row a seed, and the mean ± standard deviation.

    Args:
      runs: {seed: {score: value}}. A score is a name of `jaxplm.scores.names`, with words before it as wanted:
        'macro_f1', 'test macro_f1'.

    Raises:
      ValueError: seeds with different scores.
    """
    columns = list(next(iter(runs.values()), {}))
    for seed, run in runs.items():
        if list(run) != columns:
            raise ValueError(f"seed {seed} has the scores {', '.join(run)}, the first one {', '.join(columns)}")
    names = [column.split(" ")[-1] for column in columns]
    heading = [column.replace("_", " ") + (", %" if name in SHARES else "") for column, name in zip(columns, names, strict=True)]
    rows = [(str(seed), *map(format_score, names, run.values())) for seed, run in runs.items()]
    means = [format_mean_std(name, [run[column] for run in runs.values()]) for name, column in zip(names, columns, strict=True)]
    return [("seed", *heading), *rows, ("mean ± std", *means)]
