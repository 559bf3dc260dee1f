"""Compute the log-probabilities of a Unigram vocabulary by expectation-maximisation (Kudo 2018), the same in every run.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_WORDS = 200_000  # the most frequent words: they are enough for the scores
_LONGEST = 32  # characters of a word
_BLOCK = 20_000  # words computed at once
_ROUNDS = 5
_LEAST = 0.1  # expected occurrences of a piece that no word uses


class Lattice(NamedTuple):
    """All ways to write a block of W words by pieces: each of E edges is a piece at a place of a word.

    Attributes:
      word: [E] int64, row of the word.
      begin, end: [E] int64, first character of the piece and the one after its last; `end` ascends.
      piece: [E] int64, number of the piece.
      lengths: [W] int64, characters of each word.
      counts: [W] float64, occurrences of each word.
    """

    word: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    piece: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


def piece_scores(pieces: Sequence[str], words: Mapping[str, int]) -> list[float]:
    """Return the natural logarithms of the pieces' probabilities, rounded to five digits, in the order of `pieces`.

    EM begins with equal probabilities, so the shortest ways to write a word count most at first.

    Args:
      pieces: of the vocabulary; every character of `words` is among them.
      words: {word: occurrences}.
    """
    frequent = sorted((word for word in words if len(word) <= _LONGEST), key=lambda word: (-words[word], word))[:_WORDS]
    numbers = {piece: i for i, piece in enumerate(pieces)}
    blocks = [_lattice(frequent[i : i + _BLOCK], words, numbers) for i in range(0, len(frequent), _BLOCK)]
    probability = np.full(len(pieces), 1 / len(pieces))
    for _ in range(_ROUNDS):
        expected = np.maximum(sum((_expected(block, probability) for block in blocks), np.zeros(len(pieces))), _LEAST)
        probability = expected / expected.sum()
    return [round(float(score), 5) for score in np.log(probability)]


def _lattice(words: Sequence[str], counts: Mapping[str, int], numbers: Mapping[str, int]) -> Lattice:
    longest = max(map(len, numbers))
    edges = [(end, row, begin, number) for row, word in enumerate(words) for begin in range(len(word))
             for end in range(begin + 1, min(begin + longest, len(word)) + 1)
             if (number := numbers.get(word[begin:end])) is not None]
    table = np.array(edges, np.int64).reshape(-1, 4)
    end, word, begin, piece = table[np.argsort(table[:, 0], kind="stable")].T
    return Lattice(word, begin, end, piece, np.array([len(word) for word in words], np.int64),
                   np.array([counts[word] for word in words], np.float64))


def _expected(block: Lattice, probability: np.ndarray) -> np.ndarray:
    """Return the expected occurrences [P] of the pieces, by forward and backward sums over each word's lattice."""
    rows, width = len(block.lengths), int(block.lengths.max(initial=0)) + 1
    weight = probability[block.piece]
    ends = np.searchsorted(block.end, np.arange(width + 1))  # the edges that end at e are ends[e] : ends[e + 1]
    forward, backward = np.zeros((width, rows)), np.zeros((width, rows))
    forward[0] = 1.0
    for e in range(1, width):
        here = slice(ends[e], ends[e + 1])
        flow = forward[block.begin[here], block.word[here]] * weight[here]
        forward[e] = np.bincount(block.word[here], flow, rows)
    backward[block.lengths, np.arange(rows)] = 1.0
    for e in range(width - 1, 0, -1):
        here = slice(ends[e], ends[e + 1])
        np.add.at(backward, (block.begin[here], block.word[here]), backward[e, block.word[here]] * weight[here])
    total = forward[block.lengths, np.arange(rows)]
    share = forward[block.begin, block.word] * weight * backward[block.end, block.word]
    return np.bincount(block.piece, share * (block.counts / total)[block.word], len(probability))
