"""Numbers as a person reads them in a log line: durations, counts, scores."""

from collections.abc import Mapping
from typing import Any

from jaxplm.scores.names import SHARES
from jaxplm.scores.sums import NOT_SCORES


def duration(seconds: float) -> str:
    """Return minutes and seconds, or hours, minutes and seconds: "2:10", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: float) -> str:
    """Return three significant digits with a unit: "812", "12.3 K", "4.71 M", "1.31 B"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= 0.9995 * size and number >= 1e4:
            value = number / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{number:,.0f}"


def scores_text(metrics: Mapping[str, Any]) -> str:
    """Return the scores of one evaluation: "loss 4.1234, perplexity 61.77, accuracy 32.1%"; times and counts are left out."""
    parts = []
    for name, value in metrics.items():
        if name not in NOT_SCORES and value is not None:
            shown = f"{value:.1%}" if name in SHARES else f"{value:.2f}" if name == "perplexity" else f"{value:.4f}"
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)
