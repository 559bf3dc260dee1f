"""Append merges to a byte-level BPE (Sennrich et al. 2016).

The lowest-ranked merge is done first, so appended merges never change how the old ones cut a pre-token: they join what
the old ones leave. A merge is not a rule about one word: it joins its pair in every word. Two choices follow:

* A new merge gives a new entry, or one that an earlier new merge gives, never an old entry. So a text whose ids are all
  old was cut by the old merges alone, and has exactly its old ids.
* Of the pairs that could be joined on the way to a token, one that is asked for itself comes first, then the one whose
  pieces are the rarest. Ids tell how rare: they run from frequent to rare, in the order of the merges (GPT-2) or of
  counts (RoBERTa). Such a pair is the least likely to occur in another word.
"""

import math
from collections.abc import Collection
from itertools import pairwise
from typing import Any


class Merges:
    """A BPE model that grows.

    Args:
      model: the `tokenizers.models.BPE`.
      vocabulary: {entry: id}, with the added tokens.
      first_id: the first new id.

    Attributes:
      ids: {entry: id} of the new entries, in the order of their ids.
      pieces: {new entry: the old entries that stood for it}.
      added: the new merges, lowest rank first.
    """

    def __init__(self, model: Any, vocabulary: dict[str, int], first_id: int) -> None:
        self._model = model
        self._old = vocabulary
        self._first_id = first_id
        self._rank: dict[tuple[str, str], int] = {}
        self.ids: dict[str, int] = {}
        self.pieces: dict[str, list[str]] = {}

    @property
    def added(self) -> list[tuple[str, str]]:
        return list(self._rank)

    def cut(self, pretoken: str) -> list[str]:
        """Return the entries that stand for a pre-token once the new merges are in the model."""
        entries = self.old_cut(pretoken)
        while True:
            ranks = [self._rank.get(pair, math.inf) for pair in pairwise(entries)]
            if not ranks or (lowest := min(ranks)) == math.inf:
                return entries
            place = ranks.index(lowest)
            entries[place : place + 2] = [entries[place] + entries[place + 1]]

    def old_cut(self, pretoken: str) -> list[str]:
        """Return the entries that stand for a pre-token by the old merges alone."""
        return [token.value for token in self._model.tokenize(pretoken)]

    def form(self, token: str, pretoken: str, start: int, wanted: Collection[str]) -> str | None:
        """Add the merges that form `token` at character `start` of `pretoken`.

        Args:
          wanted: entries that are asked for as well; they are preferred as intermediate steps.

        Returns:
          None, or why the token cannot be formed; then nothing was added.
        """
        before = len(self._rank), len(self.ids)
        while True:
            entries = self.cut(pretoken)
            span = _span(entries, start, len(token))
            if span is None:
                self._take_back(*before)
                return "has no place where the pieces of the old vocabulary begin and end with it"
            if len(span) == 1:
                break
            pairs = [pair for pair in pairwise(span) if "".join(pair) not in self._old]
            if not pairs:
                self._take_back(*before)
                return f"needs {''.join(span[:2])!r} as an intermediate step, which is an old entry: other words would change their tokens"
            self._add(
                max(pairs, key=lambda pair: ("".join(pair) in wanted or "".join(pair) in self.ids, self._rarity(pair)))
            )
        old = _span(self.old_cut(pretoken), start, len(token))
        assert old is not None  # the old pieces lie within the new ones
        self.pieces[token] = old
        return None

    def _add(self, pair: tuple[str, str]) -> None:
        joined = "".join(pair)
        self._rank[pair] = len(self._rank)
        if joined not in self.ids:
            self.ids[joined] = self._first_id + len(self.ids)
            self.pieces[joined] = [piece for entry in pair for piece in self.pieces.get(entry, [entry])]

    def _take_back(self, ranks: int, ids: int) -> None:
        for pair in list(self._rank)[ranks:]:
            del self._rank[pair]
        for entry in list(self.ids)[ids:]:
            del self.ids[entry], self.pieces[entry]

    def _rarity(self, pair: tuple[str, str]) -> float:
        """Return minus the logarithm of how often the pieces meet by chance, up to a constant.

        Zipf's law over ids gives the frequency of a piece.
        """
        return sum(math.log(1 + self._old[piece]) for entry in pair for piece in self.pieces.get(entry, [entry]))


def _span(entries: list[str], start: int, length: int) -> list[str] | None:
    """Return the entries that make up `length` characters from `start`, or None if one crosses an edge of that stretch.
    """
    first = last = at = 0
    while first < len(entries) and at < start:
        at += len(entries[first])
        first += 1
    if at != start:
        return None
    last = first
    while last < len(entries) and at < start + length:
        at += len(entries[last])
        last += 1
    return entries[first:last] if at == start + length else None
