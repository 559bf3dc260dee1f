"""Count the words of a corpus in bounded memory.

The trainers of vocabularies see these counts and never the corpus.
"""

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer

# Distinct words to keep: they take about 400 MB here and 4 GB in the BPE trainer, which needs most (0.85 million: 170
# MB and 1.6 GB).
MAX_WORDS = 2_000_000
_PENDING = 250_000  # distinct stretches of text after which they are cut into words
_PENDING_CHARS = 1 << 26  # characters read after which they are
_LONGEST = 256  # characters (byte-level: bytes) of a word that is counted

# White space belongs to the word after it: in byte-level vocabularies it is part of the token.
_STRETCH = re.compile(r"\s*\S+")


class WordCounter:
    """Counts words as a tokenizer's normalizer and pre-tokenizer cut them.

    Most stretches between spaces repeat, so each distinct one is cut once. When there are more than `max_words`
    distinct words, the rarest are dropped, as in lossy counting (Manku & Motwani 2002); a dropped word that occurs
    later is counted from zero. No random numbers: the same texts give the same counts.

    Args:
      tokenizer: its normalizer and pre-tokenizer are used.
      max_words: distinct words to keep.

    Attributes:
      counts: {word: occurrences}; complete after `finish`.
      dropped_below: words with this count or less were dropped at some point; 0: none.
    """

    def __init__(self, tokenizer: Tokenizer, max_words: int = MAX_WORDS) -> None:
        self._normalizer, self._pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        self._max_words = max_words
        self._pending: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.dropped_below = 0

    def add(self, texts: Iterable[str]) -> None:
        """Count more texts."""
        read = 0
        for text in texts:
            self._pending.update(_STRETCH.findall(text))
            read += len(text)
            if len(self._pending) > _PENDING or read > _PENDING_CHARS:
                self._cut()
                read = 0

    def finish(self) -> None:
        """Complete `counts`."""
        self._cut()

    def _cut(self) -> None:
        """Cut the pending stretches into words, and drop rare words where there are too many."""
        for stretch, count in self._pending.items():
            text = stretch if self._normalizer is None else self._normalizer.normalize_str(stretch)
            for word, _ in self._pre_tokenizer.pre_tokenize_str(text):
                if len(word) <= _LONGEST:
                    self.counts[word] += count
        self._pending.clear()
        while len(self.counts) > self._max_words:
            self.dropped_below += 1
            self.counts = Counter({word: n for word, n in self.counts.items() if n > self.dropped_below})
