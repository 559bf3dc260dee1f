"""The company that new tokens keep (Firth 1957): which old tokens stand around them in a corpus."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

WINDOW = 5  # tokens to either side
_MOST_TEXTS = 50_000  # enough for any token that occurs often enough to be chosen
_BATCH = 1024


def contexts(texts: Iterable[str], tokenizer: Any, first: int, count: int) -> list[dict[int, float]]:
    """Weights of the old tokens within `WINDOW` places of each new token.

    A neighbour weighs its number of meetings divided by the square root of those with all new tokens: otherwise "the"
    and "." would make all rows alike.

    Args:
      texts: the corpus; of a long one the beginning is read.
      tokenizer: fast, with the new tokens.
      first: the first new id; `count` of them follow each other.

    Returns:
      [count] {old id: weight}, empty for a token that does not occur.
    """
    met: Counter[int] = Counter()  # new token × first + neighbour
    special = np.array(tokenizer.all_special_ids)
    for batch in _batches(itertools.islice(texts, _MOST_TEXTS)):
        for encoding in tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False):
            ids = np.array(encoding.ids)
            here = np.flatnonzero(ids >= first)
            if not len(here):
                continue
            around = here[:, None] + np.array([step for step in range(-WINDOW, WINDOW + 1) if step])
            inside = (around >= 0) & (around < len(ids))
            neighbours = ids[np.clip(around, 0, len(ids) - 1)]
            inside &= (neighbours < first) & ~np.isin(neighbours, special)
            pairs = (ids[here] - first)[:, None] * first + neighbours
            met.update(pairs[inside].tolist())
    totals: Counter[int] = Counter()
    for pair, times in met.items():
        totals[pair % first] += times
    found: list[dict[int, float]] = [{} for _ in range(count)]
    for pair, times in sorted(met.items()):
        found[pair // first][pair % first] = times / totals[pair % first] ** 0.5
    return found


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """itertools.batched came with Python 3.12."""
    rest = iter(texts)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch
