"""How many frequent words two corpora share."""

from collections.abc import Mapping

from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.splits import form_counts

# Figure 2 of Gururangan et al. 2020 compares the 10,000 most frequent words without stop words. A list of stop words
# would be one language's; instead a word among the 100 most frequent of both corpora counts as one.
OVERLAP_WORDS, STOP_WORDS = 10_000, 100


def overlap(one: Measurement, other: Measurement, words: int = OVERLAP_WORDS, stop_words: int = STOP_WORDS) -> float:
    """Return the share of the most frequent words that two corpora have in common (Gururangan et al. 2020, Figure 2).

    Args:
      one, other: measurements of the two corpora.
      words: how many of each to compare, or as many as the smaller one has.
      stop_words: a word that is among this many most frequent words of both corpora is left out of both.
    """
    return shared_words(form_counts(one), form_counts(other), words, stop_words)


def shared_words(
    one: Mapping[str, int], other: Mapping[str, int], words: int = OVERLAP_WORDS, stop_words: int = STOP_WORDS
) -> float:
    """Return what `overlap` does, from the occurrences of each corpus's words; a word without a letter is none."""
    ranked = [
        [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if any(map(str.isalpha, word))]
        for counts in (one, other)
    ]
    stop = set(ranked[0][:stop_words]) & set(ranked[1][:stop_words])
    kept = [[word for word in corpus if word not in stop] for corpus in ranked]
    size = min(words, *map(len, kept))
    return len(set(kept[0][:size]) & set(kept[1][:size])) / size if size else 0.0
