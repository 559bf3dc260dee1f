"""Importance weights of texts by hashed n-grams, as in DSIR (Xie et al. 2023): no model is needed.

A text is a bag of its words and of its pairs of adjacent words, each hashed into one of `BUCKETS`. Two distributions over the buckets
are estimated, that of the task's texts and that of the corpus. The log weight of a text is the sum over its n-grams of the log of their
ratio. Taking the highest log weights after Gumbel noise was added (`sampling.gumbel`) is sampling without replacement in proportion to
the weights.

Two things differ from the paper. Words are those of `text_units`, and punctuation is not among them. Every bucket has one count more
than was found, so that the empty buckets of a small task do not decide; the paper's code adds 1e-8 to each probability.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from jaxplm.data.rng import fold
from jaxplm.data.selection.text_units import split_units

BUCKETS = 10_000  # as in the paper
_MAX_KNOWN = 1_000_000  # words whose hash is kept


class HashedNgrams:
    """Turns texts into the buckets of their words and pairs of words. The buckets depend on nothing but the text."""

    def __init__(self) -> None:
        self._hashes: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the buckets of all n-grams, [m] int64, and the text that each is of, [m] int64."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is wanted, not one text")
        hashes: list[int] = []
        sizes = np.zeros(len(texts), np.int64)
        known = self._hashes
        for i, text in enumerate(texts):
            units = split_units(text)
            sizes[i] = len(units)
            for unit in units:
                found = known.get(unit)
                if found is None:
                    if len(known) >= _MAX_KNOWN:
                        known.clear()
                    found = known[unit] = int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8).digest(), "little")
                hashes.append(found)
        words = np.array(hashes, np.uint64)
        text_of = np.repeat(np.arange(len(texts)), sizes)
        together = text_of[1:] == text_of[:-1]
        pairs = fold(words[:-1], words[1:])[together] if len(words) > 1 else words[:0]
        buckets = np.concatenate([words, pairs]) % np.uint64(BUCKETS)
        owner = np.concatenate([text_of, text_of[1:][together]])
        return buckets.astype(np.int64), owner


def count(texts: Sequence[str], ngrams: HashedNgrams) -> np.ndarray:
    """Return how often each bucket occurs in some texts, [BUCKETS] int64."""
    return np.bincount(ngrams(texts)[0], minlength=BUCKETS)


def log_ratios(task: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Return the log of the ratio of the task's share to the corpus's share of each bucket, [BUCKETS] float64, from the counts of both."""
    def log_share(counts: np.ndarray) -> np.ndarray:
        return np.log((counts + 1) / (counts.sum() + len(counts)))

    return log_share(task) - log_share(corpus)


def log_weights(texts: Sequence[str], ratios: np.ndarray, ngrams: HashedNgrams) -> np.ndarray:
    """Return the log importance weight of each text, [n] float64; 0 for a text without words."""
    buckets, owner = ngrams(texts)
    return np.bincount(owner, ratios[buckets], len(texts))
