"""Find the words that a tokenizer cuts into several tokens, and what making them whole would save."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.piece_counts import is_word

# A word is typical of the domain where it is at least this many times as frequent there as in general text.
TYPICAL = 4.0
# A split is shown if it occurs in at least this many texts: below that, most are names and slips of one author.
MIN_TEXTS = 3
SHOWN = 15  # splits in a table or a plot


class WordSplit(NamedTuple):
    """A word that is cut into several tokens."""

    word: str  # as a reader writes it
    ids: tuple[int, ...]
    count: int
    texts: int

    @property
    def cost(self) -> int:
        """Tokens beyond one, over all occurrences."""
        return self.count * (len(self.ids) - 1)


def readable(text: str) -> str:
    """Return a word of a measurement's table as a reader writes it; decomposed Hangul is composed again."""
    return unicodedata.normalize("NFC", text.strip())


def frequent_splits(measurement: Measurement, most: int = SHOWN) -> list[WordSplit]:
    """Return the words of more than one token that occur most often; ties are in alphabetic order."""
    return sorted(_splits(measurement), key=lambda split: (-split.count, split.word, split.ids))[:most]


def damaging_splits(measurement: Measurement, general: Measurement | None = None, most: int = SHOWN,
                    min_texts: int = MIN_TEXTS) -> list[WordSplit]:
    """Return the split words that cost most tokens: occurrences × (tokens - 1).

    Args:
      measurement: of the domain.
      general: of general text in the same language, if there is some. Then only words typical of the domain count:
        those at least `TYPICAL` times as frequent as in general text (half an occurrence is added to both counts).
      most: how many to return.
      min_texts: texts in which a word must occur. It must also start with a letter.
    """
    typical = _typical(measurement, general) if general else lambda _: True
    splits = [split for split in _splits(measurement)
              if split.texts >= min_texts and split.word[:1].isalpha() and typical(split.word)]
    return sorted(splits, key=lambda split: (-split.cost, split.word, split.ids))[:most]


def covered_share(measurement: Measurement, words: int, min_count: int = 1) -> float:
    """Return the share of all extra tokens (beyond one per word) that the `words` costliest split words account for.

    This share would go if these words were whole. It is a lower bound for as many well chosen tokens, as parts of words
    serve several. Words that occur fewer than `min_count` times are left split.
    """
    costs = sorted((split.cost for split in _splits(measurement) if split.count >= min_count), reverse=True)
    return sum(costs[:words]) / max(1, measurement.extra)


def form(word: str) -> str:
    """Return a word without regard to its case."""
    return word.lower()


def form_counts(measurement: Measurement) -> Counter[str]:
    """Return the occurrences of words without regard to case and to the space before them."""
    forms: Counter[str] = Counter()
    for word, occurrences in measurement.table.items():
        if is_word(word.text):
            forms[form(readable(word.text))] += occurrences.count
    return forms


def _splits(measurement: Measurement) -> list[WordSplit]:
    return [WordSplit(readable(word.text), word.ids, *occurrences) for word, occurrences in measurement.table.items()
            if len(word.ids) > 1 and is_word(word.text)]


def _typical(measurement: Measurement, general: Measurement) -> Callable[[str], bool]:
    """Return a function that says whether a word is typical of the domain."""
    here, there = form_counts(measurement), form_counts(general)
    threshold = math.log(TYPICAL) + math.log(max(1, measurement.totals.words) / max(1, general.totals.words))

    def typical(word: str) -> bool:
        return math.log(here[form(word)] + 0.5) - math.log(there[form(word)] + 0.5) >= threshold

    return typical
