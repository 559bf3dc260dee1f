"""Find the texts of a corpus that share an n-gram of words with a task's evaluation sets."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxplm.data.rng import fold, key
from jaxplm.data.selection.text_units import split_units, weight, word_weight

_PURPOSE = 0x1EAC
_UNKNOWN = -1


class LeakFinder:
    """The n-grams of some sets of texts, and which of them a text shares.

    An n-gram is what weighs `words` words from some unit on: eight words, or 32 characters of a script without spaces, or a
    mixture (see `text_units`). Where an n-gram ends depends on its own units alone, so the same sentence has the same n-grams in
    any surroundings. A text of the sets that is shorter than an n-gram is shared by a text that has the same units and no others.

    Units are numbered, the windows of a text are hashed together, and a window whose hash is one of the sets' is compared unit by
    unit: no n-gram is found that is not there.

    Args:
      sets: {name: texts}, eight at most.
      words: n.

    Attributes:
      names: of the sets; bit i of what `find` returns stands for names[i].
      grams: how many different n-grams, and short texts, the sets have.
    """

    def __init__(self, sets: Mapping[str, Iterable[str]], words: int) -> None:
        self.names = tuple(sets)
        if len(self.names) > 8:
            raise ValueError("a byte has a bit for eight sets")
        self._needed = word_weight(words)
        self._numbers: dict[str, int] = {}
        self._weights: list[int] = []
        self._grams: dict[tuple[int, ...], int] = {}
        self._short: dict[tuple[str, ...], int] = {}
        for bit, texts in enumerate(sets.values()):
            for text in texts:
                self._add(split_units(text), 1 << bit)
        self.grams = len(self._grams) + len(self._short)
        hashes = np.array([self._hash_of(np.array(gram)) for gram in self._grams], np.uint64)
        self._hashes = np.unique(hashes)

    def _add(self, units: Sequence[str], bit: int) -> None:
        for unit in units:
            if unit not in self._numbers:
                self._numbers[unit] = len(self._numbers)
                self._weights.append(weight(unit))
        ids = [self._numbers[unit] for unit in units]
        ends = self._ends(np.array([self._weights[i] for i in ids], np.int64))
        whole = np.flatnonzero(ends <= len(ids))
        for start, end in zip(whole.tolist(), ends[whole].tolist(), strict=True):
            gram = tuple(ids[start:end])
            self._grams[gram] = self._grams.get(gram, 0) | bit
        if units and not len(whole):
            self._short[tuple(units)] = self._short.get(tuple(units), 0) | bit

    def _ends(self, weights: np.ndarray) -> np.ndarray:
        """Return, for each unit, the end of the n-gram that begins there; past the last unit where there is none. Weights are above 0."""
        total = np.cumsum(weights)
        return np.searchsorted(total, total - weights + self._needed) + 1

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """Return [n] uint8: the bits of the sets with which each text shares an n-gram."""
        found = np.zeros(len(texts), np.uint8)
        if not self.grams:
            return found
        number = self._numbers.get
        ids: list[int] = []
        first = [0]
        for i, text in enumerate(texts):
            units = split_units(text)
            if self._short and (bits := self._short.get(tuple(units))):
                found[i] |= bits
            ids.extend([number(unit, _UNKNOWN) for unit in units])
            ids.append(_UNKNOWN)  # no n-gram crosses the end of a text
            first.append(len(ids))
        if not self._grams:
            return found
        all_ids = np.array(ids, np.int64)
        for start, end in self._matches(all_ids):
            if bits := self._grams.get(tuple(ids[start:end])):
                found[np.searchsorted(first, start, "right") - 1] |= bits
        return found

    def _matches(self, ids: np.ndarray) -> Iterable[tuple[int, int]]:
        """Yield (start, end) of the windows whose hash is that of an n-gram of the sets."""
        known = ids != _UNKNOWN
        weights = np.where(known, np.array(self._weights, np.int64)[np.maximum(ids, 0)], 1)
        ends = self._ends(weights)
        next_unknown = np.minimum.accumulate(np.where(known, len(ids), np.arange(len(ids)))[::-1])[::-1]
        starts = np.flatnonzero(known & (ends <= next_unknown))
        ends = ends[starts]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_spread(np.maximum(ids, 0)) * _powers(len(ids)))])
        # The sum over a window, divided by the power that it begins with.
        hashes = (sums[ends] - sums[starts]) * _powers(len(ids), inverse=True)[starts]
        at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        hit = self._hashes[at] == hashes
        return zip(starts[hit].tolist(), ends[hit].tolist(), strict=True)

    def _hash_of(self, gram: np.ndarray) -> np.uint64:
        return (_spread(gram) * _powers(len(gram))).sum(dtype=np.uint64)


# A polynomial over integers modulo 2⁶⁴: the base is odd, so it has an inverse.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def _spread(ids: np.ndarray) -> np.ndarray:
    return fold(key(_PURPOSE), ids)


def _powers(count: int, *, inverse: bool = False) -> np.ndarray:
    """Return base⁰, base¹, ... modulo 2⁶⁴, [count] uint64."""
    factors = np.full(count, _INVERSE if inverse else _BASE, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)
