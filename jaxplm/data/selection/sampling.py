"""Take texts by chance: what a text draws depends on the seed and on its own number alone."""

import numpy as np

from jaxplm.data.rng import fold, key, uniform

_RANDOM, _GUMBEL = 0x5A3D, 0x6B3E


def random_scores(seed: int, texts: np.ndarray) -> np.ndarray:
    """Return a number in [0, 1) for each text of the given numbers, [n] float64: the highest are a sample without replacement."""
    return uniform(fold(key(seed, _RANDOM), texts))


def gumbel(seed: int, texts: np.ndarray) -> np.ndarray:
    """Return Gumbel noise for each text of the given numbers, [n] float64."""
    return gumbel_of(fold(key(seed, _GUMBEL), texts))


def gumbel_of(bits: np.ndarray) -> np.ndarray:
    """Return finite Gumbel noise from 64 random bits each."""
    share = ((bits >> np.uint64(12)) + 0.5) * 2.0**-52  # above 0 and below 1
    return -np.log(-np.log(share))


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the `count` highest scores, [count] int64 ascending; of equal scores the first ones."""
    if count >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > least)
    level = np.flatnonzero(scores == least)[: count - len(above)]
    return np.sort(np.concatenate([above, level]))
