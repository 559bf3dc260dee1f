"""A fixed sample of labelled rows that keeps the shares of the labels: for curves over the number of rows."""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def spread_rows(keys: Sequence[str], labels: Sequence[Any], rows: int) -> np.ndarray:
    """Return the numbers of `rows` rows, ascending.

    The order of the input does not matter, a larger sample contains a smaller one, and each label has about the share that it
    has in the whole set. Where there are as many rows as labels, every label has one at least. Labels that are no names or
    integers (numbers, lists of tags) are not looked at.

    Args:
      keys: of n rows: the text, or whatever tells them apart.
      labels: of the n rows.
      rows: how many to take, at most n.
    """
    order = sorted(range(len(keys)), key=lambda row: (hashlib.blake2b(keys[row].encode(), digest_size=8).digest(), row))
    groups: dict[Hashable, list[int]] = {}
    for row in order:
        groups.setdefault(labels[row] if isinstance(labels[row], (str, int)) else None, []).append(row)
    # Row i of a group of n stands at (i + 1/2) / n of the whole order, its first one at the start; larger groups stand first.
    place = {row: ((i + 0.5) / len(group) if i else 0.0, -len(group)) for group in groups.values() for i, row in enumerate(group)}
    chosen = sorted(order, key=lambda row: place[row])[:rows]  # stable: ties stay in the order of their hashes
    return np.sort(np.array(chosen, np.int64))
