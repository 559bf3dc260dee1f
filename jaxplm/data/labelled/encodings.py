"""Texts of a task through the tokenizer: whole or cut, or as windows that overlap; the result in flat arrays."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from jaxplm.data.corpus.tokenize import clean_copy
from jaxplm.errors import UserError

# Inputs encoded at once: enough work for every core, few enough for their `Encoding`s to stay small.
_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Encoded:
    """n units of T tokens, one after the other, special tokens included; -1 marks what a special token has not.

    Attributes:
      ids: [T] int32.
      types: [T] int8: 1 in the second text of a pair where the tokenizer says so.
      offsets: [n + 1] int64; unit u is ids[offsets[u]:offsets[u + 1]].
      example: [n] int64, the input that each unit is of; in order.
      words: [T] int32, the word of a pre-split text that a token is of; None where nothing was pre-split or asked for.
      text: [T] int8, the text of a pair, 0 or 1, that a token is of; None likewise.
      chars: [T, 2] int32, the characters of its text that a token stands for: first, and one after the last; None likewise.
      truncated: how many inputs were cut.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    example: np.ndarray
    words: np.ndarray | None = None
    text: np.ndarray | None = None
    chars: np.ndarray | None = None
    truncated: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """[n] int64 tokens of each unit."""
        return np.diff(self.offsets)


class Encoder:
    """Encodes as stock `tokenizer(...)` does, on a copy whose truncation is its own.

    Args:
      tokenizer: a fast transformers tokenizer; it is not changed.
      split_words: for texts that come as words: byte-level tokenizers then put a space before each, as stock
        transformers demands (`add_prefix_space=True`).
    """

    def __init__(self, tokenizer: Any, *, split_words: bool = False) -> None:
        self._backend = clean_copy(tokenizer)[0]
        if split_words and self._backend.pre_tokenizer is not None:
            self._backend.pre_tokenizer = _prefix_space(self._backend.pre_tokenizer)
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._side = tokenizer.truncation_side
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, a fork earlier in the process turns it off

    def special_tokens(self, *, pair: bool) -> int:
        """How many special tokens go around a text or a pair."""
        return self._backend.num_special_tokens_to_add(pair)

    def cut(self, texts: list[str], pairs: list[str] | None, seq_len: int) -> Encoded:
        """One unit a text or pair, the longer text of a pair cut first where they do not fit into `seq_len` tokens."""
        self._backend.enable_truncation(seq_len, strategy="longest_first", direction=self._side)
        inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
        parts = _Parts(detailed=False)
        for at, encodings in self._encode(inputs):
            for index, encoding in enumerate(encodings, at):
                parts.add(encoding, index)
                parts.truncated += len(encoding.ids) == seq_len and bool(encoding.overflowing)
        return parts.joined(self._has_types)

    def windows(self, inputs: Sequence, seq_len: int, overlap: np.ndarray, *, pair: bool, split_words: bool = False) -> Encoded:
        """Windows of at most `seq_len` tokens over a text, or over the second text of a pair; nothing is lost.

        Args:
          inputs: n texts, n lists of words (`split_words`), or n pairs.
          seq_len: L.
          overlap: [n] tokens that neighbouring windows share; less than what a window holds of the text.

        Returns:
          The windows, those of one input in order; with `words`, `text` and `chars`.
        """
        parts = _Parts(detailed=True)
        order: list[int] = []
        for value in np.unique(overlap).tolist():  # one for nearly all; less where a question fills most of a window
            chosen = np.flatnonzero(overlap == value).tolist()
            self._backend.enable_truncation(seq_len, stride=value, strategy="only_second" if pair else "only_first")
            for at, encodings in self._encode([inputs[i] for i in chosen], split_words):
                for index, encoding in zip(chosen[at : at + len(encodings)], encodings, strict=True):
                    for window in (encoding, *encoding.overflowing):
                        parts.add(window, index)
                        order.append(index)
        encoded = parts.joined(self._has_types)
        return encoded if sorted(order) == order else _reorder(encoded, np.argsort(order, kind="stable"))

    def lengths(self, texts: list[str]) -> tuple[np.ndarray, list[list[tuple[int, int]]]]:
        """[n] tokens of each text, special ones left out, and for each the characters that its tokens stand for."""
        self._backend.no_truncation()
        offsets = [encoding.offsets for _, batch in self._encode(texts, special=False) for encoding in batch]
        return np.array(list(map(len, offsets)), np.int64), offsets

    def _encode(self, inputs: Sequence, split_words: bool = False, special: bool = True) -> Iterator[tuple[int, list[tokenizers.Encoding]]]:
        for at in range(0, len(inputs), _BATCH):
            batch = inputs[at : at + _BATCH]
            yield at, self._backend.encode_batch(batch, is_pretokenized=split_words, add_special_tokens=special)


class _Parts:
    """Collects the arrays of `Encoding`s."""

    def __init__(self, detailed: bool) -> None:
        self._detailed = detailed
        self._ids: list[list[int]] = []
        self._types: list[list[int]] = []
        self._example: list[int] = []
        self._words: list[np.ndarray] = []
        self._text: list[np.ndarray] = []
        self._chars: list[np.ndarray] = []
        self._packed: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.truncated = 0

    def add(self, encoding: tokenizers.Encoding, example: int) -> None:
        self._ids.append(encoding.ids)
        self._types.append(encoding.type_ids)
        self._example.append(example)
        if self._detailed:
            self._words.append(_integers(encoding.word_ids))
            self._text.append(_integers(encoding.sequence_ids))
            self._chars.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))
        if len(self._ids) == 8 * _BATCH:
            self._pack()

    def _pack(self) -> None:
        """Lists of Python integers take ten times the memory, so they are not kept for long."""
        lengths = np.fromiter(map(len, self._ids), np.int64, len(self._ids))
        total = int(lengths.sum())
        ids = np.fromiter(itertools.chain.from_iterable(self._ids), np.int32, total)
        types = np.fromiter(itertools.chain.from_iterable(self._types), np.int8, total)
        self._packed.append((ids, types, lengths))
        self._ids, self._types = [], []

    def joined(self, has_types: bool) -> Encoded:
        self._pack()
        ids, types, lengths = (np.concatenate(arrays) for arrays in zip(*self._packed, strict=True))
        detail = {}
        if self._detailed:
            empty = np.zeros(0, np.int32)
            words, text = np.concatenate([empty, *self._words]), np.concatenate([empty, *self._text]).astype(np.int8)
            chars = np.concatenate([empty.reshape(0, 2), *self._chars])
            chars[text < 0] = -1
            detail = {"words": words, "text": text, "chars": chars}
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Encoded(ids, types if has_types else np.zeros_like(types), offsets, np.array(self._example, np.int64),
                       truncated=self.truncated, **detail)


def _integers(values: list[int | None]) -> np.ndarray:
    return np.array([-1 if value is None else value for value in values], np.int32)


def _reorder(encoded: Encoded, units: np.ndarray) -> Encoded:
    """The same units in another order."""
    lengths = encoded.lengths[units]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.arange(offsets[-1]) + np.repeat(encoded.offsets[units] - offsets[:-1], lengths)
    assert encoded.words is not None and encoded.text is not None and encoded.chars is not None
    return Encoded(encoded.ids[source], encoded.types[source], offsets, encoded.example[units], encoded.words[source],
                   encoded.text[source], encoded.chars[source], encoded.truncated)


def _prefix_space(step: tokenizers.pre_tokenizers.PreTokenizer) -> tokenizers.pre_tokenizers.PreTokenizer:
    """The pre-tokenizer with a space put before each word, where it is a byte-level one."""
    if isinstance(step, tokenizers.pre_tokenizers.ByteLevel):
        step.add_prefix_space = True
    elif isinstance(step, tokenizers.pre_tokenizers.Sequence):
        return tokenizers.pre_tokenizers.Sequence([_prefix_space(one) for one in step])  # type: ignore[call-overload]
    return step


def most_overlap(room: Any) -> Any:
    """How many of the `room` (a number or an array) tokens of text that a window holds it may share with the next: three quarters.

    With more, the number of windows would grow without bound, and each token would be read many times.
    """
    return room * 3 // 4


def check_overlap(overlap: int, room: int, seq_len: int) -> None:
    """`UserError` where windows share more than `most_overlap`."""
    if overlap > most_overlap(room):
        raise UserError(f"task.overlap={overlap}: windows of data.seq_len={seq_len} tokens hold {room} of the text and may share at most"
                        f" {most_overlap(room)}; take a smaller overlap or longer rows")
