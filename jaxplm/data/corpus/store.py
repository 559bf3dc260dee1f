"""A tokenized corpus on disk: flat files of integers, memory-mapped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxplm.data import checksums
from jaxplm.data.bin_packing import ramp

# Part of the cache key: raise it when the files' layout or the rules of `words` change.
FORMAT_VERSION = 1
_FILES = ("tokens.bin", "word_starts.bin", "offsets.bin")


class TokenArrays(Protocol):
    """What rows are made from: T tokens of n texts, one text after the other. A `TokenStore` has it."""

    @property
    def tokens(self) -> np.ndarray: ...  # [T] unsigned integers

    @property
    def word_starts(self) -> np.ndarray: ...  # [T] bool, True where a word starts

    @property
    def offsets(self) -> np.ndarray: ...  # [n + 1] int64, where each text starts


@dataclass(frozen=True)
class TokenStore:
    """A tokenized corpus of n texts and T tokens, without special tokens at the ends of texts.

    Attributes:
      tokens: `[T]` uint16 (vocabularies up to 65,536) or uint32, memory-mapped.
      word_starts: `[T]` bool, memory-mapped; True where a word of whole-word masking starts.
      offsets: `[n + 1]` int64; text i is `tokens[offsets[i]:offsets[i + 1]]`, never empty.
      meta: `texts`, `tokens`, `words`, `chars` (Unicode characters of the texts), `unk` (unknown tokens),
        `no_tokens` (texts that gave no token and are not in), `counts` (what the reader counted), `source`.
    """

    tokens: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray
    meta: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> "TokenStore":
        """Map the files that `tokenize` wrote, and compare them with their checksums; see `seal`.

        Raises:
          ValueError, KeyError, OSError: they are damaged, or were written without checksums by an earlier version.
        """
        meta = checksums.opened(checksums.read_json(directory / "meta.json"), "meta.json")
        sums = meta.pop("files")
        if sorted(sums) != sorted(_FILES):
            raise ValueError("meta.json lists other files")
        for name, expected in sums.items():
            if checksums.of_file(directory / name) != expected:
                raise ValueError(f"{name} is not what was written")
        length, dtype = meta["tokens"], np.dtype(meta["dtype"])
        for name, size in (("tokens", length * dtype.itemsize), ("word_starts", length)):
            if (stored := (directory / f"{name}.bin").stat().st_size) != size:
                raise ValueError(f"{name}.bin has {stored} bytes, not {size}")
        tokens = np.memmap(directory / "tokens.bin", dtype, "r", shape=(length,))
        word_starts = np.memmap(directory / "word_starts.bin", np.bool_, "r", shape=(length,))
        offsets = np.fromfile(directory / "offsets.bin", np.int64)
        if len(offsets) != meta["texts"] + 1 or offsets[-1] != length:
            raise ValueError("offsets.bin does not fit the tokens")
        return cls(tokens, word_starts, offsets, meta)


def joined(parts: Sequence[tuple[TokenStore, np.ndarray]], source: str) -> TokenStore:
    """Copy some texts of several stores of one tokenizer into a store in memory, one after the other.

    Args:
      parts: stores, and the indices of the texts to copy from each.
      source: how messages call the texts; the only entry of `meta`.
    """
    lengths = [np.diff(store.offsets)[texts] for store, texts in parts]
    places = [np.repeat(store.offsets[texts], own) + ramp(own, np.cumsum(own) - own)
              for (store, texts), own in zip(parts, lengths, strict=True)]
    tokens = np.concatenate([store.tokens[place] for (store, _), place in zip(parts, places, strict=True)])
    word_starts = np.concatenate([store.word_starts[place] for (store, _), place in zip(parts, places, strict=True)])
    offsets = np.cumsum([0, *np.concatenate(lengths)]).astype(np.int64)
    return TokenStore(tokens, word_starts, offsets, {"source": source})


def seal(directory: Path, meta: dict[str, Any]) -> None:
    """Write meta.json with the checksums of the store's files and its own; it makes the store complete."""
    files = {name: checksums.of_file(directory / name) for name in _FILES}
    (directory / "meta.json").write_text(json.dumps(checksums.sealed({**meta, "files": files})))
