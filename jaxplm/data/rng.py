"""Random numbers that are a function of where they are used, not of when.

A number is the hash of its coordinates (seed, step, row, position, purpose). So any process can compute
any row of any step alone, nothing has to be saved to resume, and no draw depends on how rows are dealt
out to processes. NumPy's generators are not used, because their streams may change between versions.

The hash is the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied once for every coordinate.
"""

from typing import NamedTuple

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1
_FEISTEL_TURNS = 8


def key(*coordinates: int) -> int:
    """Return the hash of a tuple of integers as a 64-bit integer; (1, 2) and (2, 1) differ, (1,) and (1, 0) too."""
    state = len(coordinates)
    for coordinate in coordinates:
        state = (state + _GOLDEN * ((int(coordinate) + 1) & _WORD)) & _WORD
        state = ((state ^ (state >> 30)) * _M1) & _WORD
        state = ((state ^ (state >> 27)) * _M2) & _WORD
        state ^= state >> 31
    return state


def fold(keys: int | np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Hash one more coordinate into each key: 64 random bits for each element of the broadcast shape.

    Args:
      keys: what `key` or `fold` returned; a scalar or a uint64 array.
      coordinates: integers, broadcast against `keys`.

    Returns:
      uint64 of the broadcast shape.
    """
    keys = np.atleast_1d(np.asarray(keys, np.uint64))  # scalars would warn where arrays wrap around
    x = (coordinates.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN) + keys
    shifted = x >> np.uint64(30)
    x ^= shifted
    x *= np.uint64(_M1)
    x ^= np.right_shift(x, np.uint64(27), out=shifted)
    x *= np.uint64(_M2)
    x ^= np.right_shift(x, np.uint64(31), out=shifted)
    return x


class RowDraws(NamedTuple):
    """The random numbers of some rows: functions of a key and of the number of each row.

    Attributes:
      key: what the draws depend on besides the row, such as (seed, step).
      rows: [b] number of each row among all the rows of that key.
    """

    key: tuple[int, ...]
    rows: np.ndarray

    def __call__(self, purpose: int) -> np.ndarray:
        """Return [b] uint64 random bits of the rows, independent for each `purpose`."""
        return fold(key(*self.key, purpose), self.rows)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Return float64 in [0, 1) from 64 random bits each."""
    return (bits >> np.uint64(11)) * 2.0**-53


def below(bits: np.ndarray, bound: int) -> np.ndarray:
    """Return int64 in [0, bound) from 64 random bits each; `bound` up to 2**32, the bias below bound / 2**32."""
    return (((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def shuffle_keys(bits: np.ndarray, index: np.ndarray, index_bits: int) -> np.ndarray:
    """Return sort keys that carry what they sort: random high bits, `index` in the low `index_bits`.

    Sorting them shuffles the indices, several times faster than an argsort of the random bits.
    """
    keys = bits & ~np.uint64((1 << index_bits) - 1)
    keys |= index.astype(np.uint64)
    return keys


def permute(index: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Return where `index` goes under a random permutation of range(size), without storing the permutation.

    A Feistel network over the next power of two, walked until it lands inside the range (Black and Rogaway,
    "Ciphers with arbitrary finite domains", 2002): no memory, and O(1) for any place in any epoch.

    Args:
      index: [n] int64 in [0, size).
      size: how many there are.
      keys: [n] uint64: which permutation to use for each.

    Returns:
      [n] int64; for equal keys a bijection of range(size).
    """
    bits = max(2, (size - 1).bit_length())
    # Where `bits` is odd the halves differ by one and swap widths every turn; the number of turns is even.
    widths = [np.uint64(bits // 2), np.uint64(bits - bits // 2)]
    lows = [(np.uint64(1) << width) - np.uint64(1) for width in widths]
    out = index.astype(np.uint64)
    outside = np.arange(out.size)
    while outside.size:
        x, k = out[outside], keys[outside]
        left, right = x >> widths[1], x & lows[1]
        for turn in range(_FEISTEL_TURNS):
            bits_of_turn = fold(k + np.uint64(turn), right) & lows[turn % 2]
            left, right = right, left ^ bits_of_turn
        x = (left << widths[1]) | right
        out[outside] = x
        outside = outside[x >= np.uint64(size)]
    return out.astype(np.int64)
