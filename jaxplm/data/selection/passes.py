"""Go through a corpus once, with an array on disk for every stretch of texts: a pass that was stopped resumes after the last one."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxplm.data import atomic

_BATCH_TEXTS, _BATCH_CHARS = 512, 1 << 20


class CorpusPass:
    """What one pass computes: files `name`-00000.npy, ... in a directory, each complete or absent, and `name`.json at its end.

    Args:
      directory: created if it does not exist.
      name: of the pass.
      shard_texts: texts per file.
    """

    def __init__(self, directory: Path, name: str, shard_texts: int = 1 << 16) -> None:
        self._directory, self._name, self._shard_texts = directory, name, shard_texts
        self._end = directory / f"{name}.json"

    @property
    def is_complete(self) -> bool:
        return self._end.exists()

    def run(self, texts: Iterable[str], make: Callable[[int, Sequence[str]], np.ndarray], between: Callable[[int], None], *,
            joined: Callable[[list[np.ndarray]], np.ndarray] = np.concatenate) -> None:
        """Compute the files that are missing; texts of complete ones are read and left out.

        Args:
          texts: the same ones in the same order whenever the pass is resumed.
          make: takes the number of the first text and some texts, and returns an array.
          between: called after some texts with the number of texts so far; it may raise, and the pass can be resumed.
          joined: makes one array of those of a file.
        """
        if self.is_complete:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        done = 0
        while self._shard(done).exists():
            done += 1
        parts: list[np.ndarray] = []
        total = 0
        for first, batch in _batches(texts, self._shard_texts):
            total = first + len(batch)
            if first >= done * self._shard_texts:
                parts.append(make(first, batch))
                if total % self._shard_texts == 0:
                    self._save(done, joined(parts))
                    done, parts = done + 1, []
            between(total)
        if parts:
            self._save(done, joined(parts))
            done += 1
        atomic.write_text(self._end, json.dumps({"texts": total, "files": done}) + "\n")

    def arrays(self) -> Iterator[np.ndarray]:
        """Yield the array of each file of a complete pass."""
        for number in range(json.loads(self._end.read_text())["files"]):
            yield np.load(self._shard(number), allow_pickle=False)

    def _shard(self, number: int) -> Path:
        return self._directory / f"{self._name}-{number:05}.npy"

    def _save(self, number: int, array: np.ndarray) -> None:
        with atomic.open_new(self._shard(number), "wb") as file:
            np.save(file, array)


def _batches(texts: Iterable[str], shard_texts: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first text, some texts); a batch ends where a file does."""
    batch: list[str] = []
    first = size = 0
    for number, text in enumerate(texts, 1):
        batch.append(text)
        size += len(text)
        if len(batch) >= _BATCH_TEXTS or size >= _BATCH_CHARS or number % shard_texts == 0:
            yield first, batch
            batch, first, size = [], number, 0
    if batch:
        yield first, batch


class KeptTexts:
    """The texts of a corpus that are kept, as often as they are asked for.

    Args:
      texts: of the corpus, which can be read again.
      kept: [n] bool.
    """

    def __init__(self, texts: Iterable[str], kept: np.ndarray) -> None:
        self._texts, self._kept = texts, kept

    def __iter__(self) -> Iterator[str]:
        return (text for text, keep in zip(self._texts, self._kept.tolist(), strict=True) if keep)

    def __len__(self) -> int:
        return int(self._kept.sum())
