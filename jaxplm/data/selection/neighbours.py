"""Rank candidates exactly: cosines in float64, equal ones by the lower number.

A device finds candidates by float32 products. Their error has a bound, so the true neighbours are known to be among the candidates wherever
the last neighbour's cosine is higher than anything left out can have. Elsewhere, such as among thousands of equal texts, `scan` looks
at every vector.

A cosine here is a sum in one fixed order over the vector's numbers, so equal vectors have equal cosines wherever they stand.
"""

from collections.abc import Iterable

import numpy as np

_BLOCK = 1 << 22  # numbers multiplied at once


def float32_error(width: int) -> float:
    """Return a bound on the error of a cosine that is computed in float32 from vectors of length 1, rounded to float32.

    A sum of n products of numbers with rounded factors errs by (n + 4) · 2⁻²⁴ at most, whatever its order. It is doubled for
    accelerators whose float32 products are made of several shorter ones.
    """
    return 2 * (width + 4) * 2.0**-24


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors scaled to length 1, float64; a vector of zeros stays one."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.sqrt(np.square(vectors).sum(-1, keepdims=True)), 1e-300)


def cosines(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of each query [m, D] with its vector [m, D], [m] float64; both are from `unit`."""
    step = max(1, _BLOCK // max(1, queries.shape[1]))
    parts = [(queries[i : i + step] * vectors[i : i + step]).sum(-1) for i in range(0, len(queries), step)]
    return np.concatenate([np.zeros(0), *parts])


def ranked(numbers: np.ndarray, similarities: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of each row, highest similarity first, equal ones by the lower number.

    Args:
      numbers: [q, c] int64, of the candidates.
      similarities: [q, c] float64.
      k: at most c.
    """
    order = np.lexsort((numbers, -similarities), axis=-1)[:, :k]
    return np.take_along_axis(numbers, order, 1), np.take_along_axis(similarities, order, 1)


def certain(kept: np.ndarray, lowest_candidate: np.ndarray, width: int) -> np.ndarray:
    """Return for which queries the neighbours are certain, [q] bool.

    Args:
      kept: [q] float64, the exact cosine of the last neighbour.
      lowest_candidate: [q] float32, the device's cosine of the last candidate: what was left out has no higher one.
      width: of the vectors.
    """
    return kept > lowest_candidate.astype(np.float64) + float32_error(width)


def scan(queries: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of all vectors to a few queries, as `ranked` does, [q, k] each.

    Args:
      queries: [q, D] float64 from `unit`.
      blocks: (number of the first vector, [b, D] as stored), in ascending order; k vectors or more.
      k: neighbours.
    """
    numbers = [np.zeros(0, np.int64)] * len(queries)
    best = [np.zeros(0)] * len(queries)
    slack = 8 * queries.shape[1] * 2.0**-53  # a product of matrices sums in another order than `cosines`
    for first, block in blocks:
        vectors = unit(block)
        near = vectors @ queries.T
        for i, query in enumerate(queries):
            least = best[i][-1] if len(best[i]) == k else -np.inf
            if len(vectors) > k:
                least = max(least, np.partition(near[:, i], len(vectors) - k)[len(vectors) - k])
            rows = np.flatnonzero(near[:, i] >= least - slack)
            exact = cosines(np.broadcast_to(query, (len(rows), len(query))), vectors[rows])
            joined = np.concatenate([numbers[i], rows + first]), np.concatenate([best[i], exact])
            order = np.lexsort((joined[0], -joined[1]))[:k]
            numbers[i], best[i] = joined[0][order], joined[1][order]
    return np.stack(numbers), np.stack(best)
