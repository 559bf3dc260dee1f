"""A tokenized corpus on disk: flat files of integers, memory-mapped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# Part of the cache key: raise it when the files' layout or the rules of `words` change.
FORMAT_VERSION = 1


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
        """Map the files that `tokenize` wrote; raises `ValueError` or `OSError` if they are damaged."""
        meta = json.loads((directory / "meta.json").read_text())
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
