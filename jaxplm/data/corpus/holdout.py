"""Hold out part of the training texts for validation where the user gave no validation set; the same texts always."""

import hashlib
from collections.abc import Sequence

import numpy as np

from jaxplm.data import rng
from jaxplm.data.corpus.store import TokenArrays
from jaxplm.errors import UserError

# Texts of one length that agree in this many tokens are taken to be copies. Reading more would only cost time.
_PREFIX = 32
_KEY = 0x5EED
_ALL_THE_SAME = "the training data has no two different texts to hold one out: give data.validation"


def hold_out(store: TokenArrays, share: float, message: str = _ALL_THE_SAME) -> tuple[np.ndarray, np.ndarray]:
    """Divide the texts into two sets; copies of a text are always in the same one.

    The choice follows from the texts' content alone, so it is the same for every seed and for any order of the corpus.

    Args:
      store: the tokenized texts.
      share: of the tokens to hold out, at most.
      message: of the error.

    Returns:
      Indices of the texts to train on and of those held out, both ascending; neither is empty.

    Raises:
      UserError: all texts are the same, or there is only one.
    """
    (divided,) = hold_out_of_all([store], share, message)
    return divided


def hold_out_of_all(stores: Sequence[TokenArrays], share: float,
                    message: str = _ALL_THE_SAME) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide the texts of several stores as `hold_out` divides those of one that has them all.

    Returns:
      The same pair of indices for each store. All of a store's texts may be on one side.
    """
    lengths = np.concatenate([np.diff(store.offsets) for store in stores])
    fingerprints = np.concatenate([_fingerprints(store) for store in stores])
    # A group is a text with its copies. The order of groups depends on nothing but their content.
    groups, group_of = np.unique(fingerprints, return_inverse=True)
    if len(groups) < 2:
        raise UserError(message)
    tokens = np.bincount(group_of, lengths, len(groups)).astype(np.int64)
    room = int(share * lengths.sum())
    fitting = np.flatnonzero(tokens <= room)
    chosen = fitting[np.cumsum(tokens[fitting]) <= room]
    if not chosen.size:  # few and long texts: hold out the shortest
        chosen = np.array([tokens.argmin()])
    if chosen.size == len(groups):
        chosen = chosen[:-1]
    held_out = np.zeros(len(groups), bool)
    held_out[chosen] = True
    masks = np.split(held_out[group_of], np.cumsum([len(store.offsets) - 1 for store in stores])[:-1])
    return [(np.flatnonzero(~mask), np.flatnonzero(mask)) for mask in masks]


def without_copies(store: TokenArrays, others: TokenArrays) -> np.ndarray:
    """Return the indices, ascending, of the texts of `store` of which `others` has no copy."""
    return np.flatnonzero(~np.isin(_fingerprints(store), _fingerprints(others)))


def _fingerprints(store: TokenArrays) -> np.ndarray:
    """Return a hash of each text's length and first tokens, [n] uint64."""
    tokens, offsets = np.asarray(store.tokens), np.asarray(store.offsets, np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    state = rng.fold(rng.key(_KEY), lengths)
    longer = np.arange(len(starts))
    for place in range(_PREFIX):
        longer = longer[lengths[longer] > place]
        if not longer.size:
            break
        state[longer] = rng.fold(state[longer], tokens[starts[longer] + place])
    return state


def hold_out_rows(keys: Sequence[str], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Divide labelled rows into two sets; rows with the same key are always in the same one.

    Args:
      keys: of n rows: the text, or the context of a question.
      share: of the rows to hold out, about.

    Returns:
      Rows to train on and rows held out, both ascending; neither is empty.

    Raises:
      UserError: all keys are the same.
    """
    hashes = np.array(
        [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") for key in keys], np.uint64
    )
    groups, group_of, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        raise UserError(_ALL_THE_SAME)
    # Groups are sorted by a hash of their content, which is as good as random and the same for any order of the rows.
    held_groups = min(max(1, int(np.searchsorted(np.cumsum(counts), share * len(keys), "right"))), len(groups) - 1)
    mask = group_of < held_groups
    return np.flatnonzero(~mask), np.flatnonzero(mask)
