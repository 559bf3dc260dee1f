"""A corpus of any size as tokenized blocks of texts, in order: every row of the input is one unit."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxplm.data.labelled.encodings import Encoded, TokenizerEncoder

# Bounds of a block: rows, and characters that count (about two million tokens).
BLOCK_ROWS = 1 << 15
BLOCK_CHARS = 1 << 23
# A text counts for at most this many characters per token; the rest is cut off.
_CHARS_PER_TOKEN = 8
# Characters tokenized at once; the texts themselves are not kept longer than that.
_BATCH_CHARS = 1 << 20


@dataclass(frozen=True, eq=False)
class TextBlock:
    """Some rows of the input, one after the other.

    Attributes:
      first: number of the first row, from 0.
      encoded: one unit per row; an empty text has special tokens alone.
      empty: rows without text.
    """

    first: int
    encoded: Encoded
    empty: int


def text_blocks(texts: Iterable[str], tokenizer: Any, seq_len: int, *, start: int = 0, edge: int = 0,
                max_rows: int = BLOCK_ROWS, max_chars: int = BLOCK_CHARS) -> Iterator[TextBlock]:
    """Yield the blocks of `texts`. Where a block ends depends on the texts before it alone, and on nothing once `edge` is reached.

    The ids are those of stock `tokenizer(text, truncation=True, max_length=seq_len)`. Memory does not grow with the
    number of texts, nor much with their length: of a long one only the beginning is tokenized, where that is enough.

    Args:
      texts: without white space at the ends.
      tokenizer: a fast transformers tokenizer; it is not changed.
      seq_len: tokens per unit, special ones included, at most.
      start: the first row that is wanted; those before are read and left out.
      edge: a block ends before every row whose number divides by it; 0: nowhere.
      max_rows, max_chars: bounds of a block.
    """
    encoder = TokenizerEncoder(tokenizer)
    block = _Open(encoder, seq_len, start)
    for row, text in enumerate(itertools.islice(texts, start, None), start + 1):
        block.add(text)
        if block.rows >= max_rows or block.size >= max_chars or (edge and row % edge == 0):
            yield block.close()
            block = _Open(encoder, seq_len, row)
    if block.rows:
        yield block.close()


def framing(tokenizer: Any) -> tuple[int, int]:
    """Return how many special tokens the tokenizer puts before and after a text."""
    mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    before = mask.index(0) if 0 in mask else len(mask)
    return before, mask[::-1].index(0) if 0 in mask else 0


def text_tokens(encoded: Encoded, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return [T] bool: tokens of texts, and not the special ones around them; and [n] int64: how many each unit has."""
    before, after = frame
    lengths = encoded.lengths
    place = np.arange(len(encoded.ids)) - np.repeat(encoded.offsets[:-1], lengths)
    return (place >= before) & (place < np.repeat(lengths - after, lengths)), lengths - before - after


@dataclass
class _Open:
    """A block while it is filled."""

    encoder: TokenizerEncoder
    seq_len: int
    first: int
    rows: int = 0
    size: int = 0
    empty: int = 0
    waiting: list[str] = field(default_factory=list)
    waiting_chars: int = 0
    parts: list[Encoded] = field(default_factory=list)

    def add(self, text: str) -> None:
        self.rows += 1
        self.size += 16 + min(len(text), _CHARS_PER_TOKEN * self.seq_len)  # 16: a million empty texts are work too
        self.empty += not text
        self.waiting.append(text)
        self.waiting_chars += len(text) + 16
        if self.waiting_chars >= _BATCH_CHARS:
            self._encode()

    def _encode(self) -> None:
        heads = [_head(text, 256 + 2 * _CHARS_PER_TOKEN * self.seq_len) for text in self.waiting]
        encoded = self.encoder.cut(heads, None, self.seq_len)
        short = encoded.lengths < self.seq_len
        again = [i for i, text in enumerate(self.waiting) if short[i] and len(heads[i]) < len(text)]
        if again:  # much white space, or long words: more of the text is needed
            for i in again:
                heads[i] = self.waiting[i]
            encoded = self.encoder.cut(heads, None, self.seq_len)
        self.parts.append(encoded)
        self.waiting, self.waiting_chars = [], 0

    def close(self) -> TextBlock:
        if self.waiting:
            self._encode()
        ids, types, lengths = (np.concatenate([getattr(part, name) for part in self.parts]) for name in ("ids", "types", "lengths"))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        encoded = Encoded(ids, types, offsets, np.arange(self.rows), sum(part.truncated for part in self.parts))
        return TextBlock(self.first, encoded, self.empty)


def _head(text: str, limit: int) -> str:
    """Return the beginning of a long text, cut before white space, which no token crosses; the whole text where there is none."""
    if len(text) <= limit:
        return text
    cut = max(text.rfind(" ", limit // 2, limit), text.rfind("\n", limit // 2, limit))
    return text[:cut].rstrip() if cut > 0 else text
