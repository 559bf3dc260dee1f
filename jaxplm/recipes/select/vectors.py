"""Read the vectors of a complete directory of `jaxplm.recipes.embed.files` in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxplm.recipes.embed.files import read_index


class StoredVectors:
    """The vectors of n texts, in files.

    Attributes:
      count: n.
      width: D.
    """

    def __init__(self, directory: Path) -> None:
        index = read_index(directory)
        self._files = [directory / shard["file"] for shard in index["shards"]]
        self._ends = np.cumsum([shard["rows"] for shard in index["shards"]])
        self.count, self.width = index["rows"], index["width"]

    def blocks(self, rows: int, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the first vector, [b, D] as stored), b at most `rows`."""
        for first in range(start, self.count, rows):
            yield first, self._range(first, min(first + rows, self.count))

    def _range(self, first: int, stop: int) -> np.ndarray:
        return self.take(np.arange(first, stop))

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the vectors of ascending numbers, [m, D] as stored."""
        shards = np.searchsorted(self._ends, numbers, "right")
        parts = []
        for shard in np.unique(shards).tolist():
            inside = numbers[shards == shard] - (self._ends[shard - 1] if shard else 0)
            mapped = np.load(self._files[shard], mmap_mode="r", allow_pickle=False)
            whole = inside[-1] - inside[0] + 1 == len(inside)
            parts.append(np.array(mapped[inside[0] : inside[-1] + 1] if whole else mapped[inside]))
        return np.concatenate(parts)
