"""Sums in, metrics out. A task returns sums over whatever it saw; only here are they divided."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

Sums = dict[str, float]

# Numbers of a row of metrics.jsonl that are no scores.
NOT_SCORES = frozenset(("step", "split", "seconds", "learning_rate", "tokens_per_second", "tokens", "rows", "epoch", "seed"))


def add(parts: Iterable[Mapping[str, Any]]) -> Sums:
    """Add up sums of several batches (or processes), key by key."""
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + float(value)
    return total


def mlm_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """Return 'loss', 'perplexity' and 'accuracy' per masked token, from the sums 'loss', 'correct' and 'weight'.

    loss is in nats. With nothing masked (weight 0) all three are NaN. Where the sum 'characters' is there, the characters of
    the masked tokens, 'loss_per_character' is the loss divided by them.
    """
    weight = sums["weight"]
    by_character = {}
    if "characters" in sums:
        by_character["loss_per_character"] = sums["loss"] / sums["characters"] if sums["characters"] else math.nan
    if not weight:
        return {"loss": math.nan, "perplexity": math.nan, "accuracy": math.nan, **by_character}
    loss = sums["loss"] / weight
    perplexity = math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.nan
    return {"loss": loss, "perplexity": perplexity, "accuracy": sums["correct"] / weight, **by_character}
