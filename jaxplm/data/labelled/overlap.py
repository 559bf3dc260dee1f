"""Texts that two sets have in common, such as test texts that were trained on."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Overlap:
    """The texts of one set that another one has too.

    Attributes:
      count: how many, repeated ones included.
      total: texts of the set.
      examples: the first of them, each once, as they are.
    """

    count: int
    total: int
    examples: tuple[str, ...]


def overlap(train: Iterable[str], test: Iterable[str], *, examples: int = 3) -> Overlap:
    """Count the test texts that are also in the training set, letter case, white space and forms of characters aside.

    Texts are compared as they are otherwise: one that is part of another one is not counted. Empty texts are not counted.

    Args:
      train: texts; memory holds one hash per text.
      test: texts.
      examples: how many of the common ones to return.
    """
    known = {hash(key) for text in train if (key := _key(text))}
    found: dict[str, str] = {}
    count = total = 0
    for text in test:
        total += 1
        key = _key(text)
        if key and hash(key) in known:
            count += 1
            if len(found) < examples:
                found.setdefault(key, text)
    return Overlap(count, total, tuple(found.values()))


def _key(text: str) -> str:
    """Return the text by which two are the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
