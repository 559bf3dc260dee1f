"""A validation set where the user gave none: some of the training texts, always the same ones."""

import hashlib
from collections.abc import Sequence

import numpy as np

from jaxplm.data import rng
from jaxplm.data.mlm.pack import TokenArrays
from jaxplm.errors import UserError

# Texts that agree in so many tokens and in length are taken for copies. Reading more would only cost time.
_PREFIX = 32
_KEY = 0x5EED


def hold_out(store: TokenArrays, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Divides the texts in two, copies of a text always on the same side.

    The choice follows from the texts' content alone, so it is the same for every seed and for any order of
    the corpus.

    Args:
        store: the tokenized texts.
        share: of the tokens to hold out, at most.

    Returns:
        indices of the texts to train on and of those held out, both ascending; neither is empty.

    Raises:
        UserError: all texts are the same, or there is only one.
    """
    offsets = np.asarray(store.offsets, np.int64)
    lengths = np.diff(offsets)
    prints = _fingerprints(np.asarray(store.tokens), offsets[:-1], lengths)
    # A group is a text with its copies, in an order that depends on nothing but their content.
    groups, group_of = np.unique(prints, return_inverse=True)
    if len(groups) < 2:
        raise UserError("the training data has no two different texts to hold one out: give data.validation")
    tokens = np.bincount(group_of, lengths, len(groups)).astype(np.int64)
    room = int(share * lengths.sum())
    fitting = np.flatnonzero(tokens <= room)
    chosen = fitting[np.cumsum(tokens[fitting]) <= room]
    if not chosen.size:  # few and long texts: the shortest
        chosen = np.array([tokens.argmin()])
    if chosen.size == len(groups):
        chosen = chosen[:-1]
    held_out = np.zeros(len(groups), bool)
    held_out[chosen] = True
    mask = held_out[group_of]
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _fingerprints(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[n] uint64: a hash of each text's length and first tokens."""
    state = rng.fold(rng.key(_KEY), lengths)
    going_on = np.arange(len(starts))
    for place in range(_PREFIX):
        going_on = going_on[lengths[going_on] > place]
        if not going_on.size:
            break
        state[going_on] = rng.fold(state[going_on], tokens[starts[going_on] + place])
    return state


def hold_out_rows(keys: Sequence[str], share: float) -> tuple[np.ndarray, np.ndarray]:
    """The same for labelled rows: rows of the same key (text, or context of questions) stay on the same side.

    Args:
        keys: of n rows.
        share: of the rows to hold out, about.

    Returns:
        rows to train on and rows held out, both ascending; neither is empty.

    Raises:
        UserError: all keys are the same.
    """
    prints = np.array([int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") for key in keys], np.uint64)
    groups, group_of, counts = np.unique(prints, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        raise UserError("the training data has no two different texts to hold one out: give data.validation")
    # Groups are sorted by a hash of their content, which is as good as random and the same for any order of the rows.
    held = min(max(1, int(np.searchsorted(np.cumsum(counts), share * len(keys), "right"))), len(groups) - 1)
    mask = group_of < held
    return np.flatnonzero(~mask), np.flatnonzero(mask)
