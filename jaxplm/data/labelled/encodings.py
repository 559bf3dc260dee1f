"""Texts through the tokenizer: whole or cut, or as windows that overlap; the result in flat arrays."""

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
    """n units of T tokens, one after the other, special tokens included.

    A unit is what the encoder reads at once: a text or a pair, or one window of a text that is longer than a unit may be.
    In the arrays of `word_ids`, `sequence_ids` and `chars`, -1 stands where a token has no value, as special tokens have none.

    Attributes:
      ids: [T] int32.
      types: [T] int8: 1 in the second text of a pair where the tokenizer says so.
      offsets: [n + 1] int64; unit u is ids[offsets[u]:offsets[u + 1]].
      example: [n] int64, the input that each unit is of; in order, every input at least once.
      truncated: how many inputs were cut.
      word_ids: [T] int32, the word of a pre-split text that a token is of; None where nothing was pre-split or asked for.
      sequence_ids: [T] int8, the text of a pair, 0 or 1, that a token is of; None likewise.
      chars: [T, 2] int32, the characters of its text that a token stands for: first, and one after the last; None likewise.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    example: np.ndarray
    truncated: int = 0
    word_ids: np.ndarray | None = None
    sequence_ids: np.ndarray | None = None
    chars: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example)

    @property
    def lengths(self) -> np.ndarray:
        """[n] int64 tokens of each unit."""
        return np.diff(self.offsets)


class TokenizerEncoder:
    """Encodes as stock `tokenizer(...)` does, on a copy whose truncation is its own.

    Args:
      tokenizer: a fast transformers tokenizer; it is not changed.
      split_words: for texts that come as words: byte-level tokenizers then put a space before each, as stock
        transformers demands (`add_prefix_space=True`).
    """

    def __init__(self, tokenizer: Any, *, split_words: bool = False) -> None:
        self._backend = clean_copy(tokenizer)[0]
        self._split_words = split_words
        if split_words and self._backend.pre_tokenizer is not None:
            self._backend.pre_tokenizer = _prefix_space(self._backend.pre_tokenizer)
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._side = tokenizer.truncation_side
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, a fork earlier in the process turns it off

    def special_tokens(self, *, pair: bool) -> int:
        """Return how many special tokens go around a text or a pair."""
        return self._backend.num_special_tokens_to_add(pair)

    def cut(self, texts: list[str], pairs: list[str] | None, seq_len: int) -> Encoded:
        """Encode each text or pair as one unit; where it exceeds `seq_len` tokens it is cut, the longer text of a pair first."""
        self._backend.enable_truncation(seq_len, strategy="longest_first", direction=self._side)
        inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
        parts = _Parts(detailed=False)
        for at, encodings in self._encode(inputs):
            for index, encoding in enumerate(encodings, at):
                parts.add(encoding, index)
                parts.truncated += len(encoding.ids) == seq_len and bool(encoding.overflowing)
        return parts.joined(self._has_types)

    def windows(self, inputs: Sequence, seq_len: int, overlap: np.ndarray, *, pair: bool) -> Encoded:
        """Encode a text, or the second text of a pair, in windows of at most `seq_len` tokens; nothing is lost.

        Args:
          inputs: n texts, n lists of words (of an encoder with `split_words`), or n pairs.
          seq_len: L.
          overlap: [n] tokens that neighbouring windows share; less than what a window holds of the text.

        Returns:
          The windows, those of one input in order; with `word_ids`, `sequence_ids` and `chars`.
        """
        parts = _Parts(detailed=True)
        order: list[int] = []
        for value in np.unique(overlap).tolist():  # one for nearly all; less where a question fills most of a window
            chosen = np.flatnonzero(overlap == value).tolist()
            self._backend.enable_truncation(seq_len, stride=value, strategy="only_second" if pair else "only_first")
            for at, encodings in self._encode([inputs[i] for i in chosen]):
                for index, encoding in zip(chosen[at : at + len(encodings)], encodings, strict=True):
                    for window in (encoding, *encoding.overflowing):
                        parts.add(window, index)
                        order.append(index)
        encoded = parts.joined(self._has_types)
        return encoded if sorted(order) == order else _reorder(encoded, np.argsort(order, kind="stable"))

    def lengths(self, texts: list[str]) -> tuple[np.ndarray, list[list[tuple[int, int]]]]:
        """Return [n] tokens of each text, special ones left out, and for each text the characters that its tokens stand for."""
        self._backend.no_truncation()
        offsets = [encoding.offsets for _, batch in self._encode(texts, special=False) for encoding in batch]
        return np.array(list(map(len, offsets)), np.int64), offsets

    def _encode(self, inputs: Sequence, special: bool = True) -> Iterator[tuple[int, list[tokenizers.Encoding]]]:
        for at in range(0, len(inputs), _BATCH):
            batch = inputs[at : at + _BATCH]
            yield at, self._backend.encode_batch(batch, is_pretokenized=self._split_words, add_special_tokens=special)


class _Parts:
    """Collects the arrays of `Encoding`s."""

    def __init__(self, detailed: bool) -> None:
        self._detailed = detailed
        self._ids: list[list[int]] = []
        self._types: list[list[int]] = []
        self._example: list[int] = []
        self._word_ids: list[np.ndarray] = []
        self._sequence_ids: list[np.ndarray] = []
        self._chars: list[np.ndarray] = []
        self._packed: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.truncated = 0

    def add(self, encoding: tokenizers.Encoding, example: int) -> None:
        self._ids.append(encoding.ids)
        self._types.append(encoding.type_ids)
        self._example.append(example)
        if self._detailed:
            self._word_ids.append(_integers(encoding.word_ids))
            self._sequence_ids.append(_integers(encoding.sequence_ids))
            self._chars.append(np.array(encoding.offsets, np.int32).reshape(-1, 2))
        if len(self._ids) == 8 * _BATCH:
            self._pack()

    def _pack(self) -> None:
        """Turn the lists collected so far into arrays: lists of Python integers take ten times the memory."""
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
            word_ids = np.concatenate([empty, *self._word_ids])
            sequence_ids = np.concatenate([empty, *self._sequence_ids]).astype(np.int8)
            chars = np.concatenate([empty.reshape(0, 2), *self._chars])
            chars[sequence_ids < 0] = -1
            detail = {"word_ids": word_ids, "sequence_ids": sequence_ids, "chars": chars}
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Encoded(ids, types if has_types else np.zeros_like(types), offsets, np.array(self._example, np.int64),
                       self.truncated, **detail)


def _integers(values: list[int | None]) -> np.ndarray:
    return np.array([-1 if value is None else value for value in values], np.int32)


def _reorder(encoded: Encoded, units: np.ndarray) -> Encoded:
    """Return the same units in another order."""
    lengths = encoded.lengths[units]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.arange(offsets[-1]) + np.repeat(encoded.offsets[units] - offsets[:-1], lengths)
    assert encoded.word_ids is not None and encoded.sequence_ids is not None and encoded.chars is not None
    return Encoded(encoded.ids[source], encoded.types[source], offsets, encoded.example[units], encoded.truncated,
                   encoded.word_ids[source], encoded.sequence_ids[source], encoded.chars[source])


def _prefix_space(step: tokenizers.pre_tokenizers.PreTokenizer) -> tokenizers.pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer with a space put before each word, where it is a byte-level one."""
    if isinstance(step, tokenizers.pre_tokenizers.ByteLevel):
        step.add_prefix_space = True
    elif isinstance(step, tokenizers.pre_tokenizers.Sequence):
        return tokenizers.pre_tokenizers.Sequence([_prefix_space(one) for one in step])  # type: ignore[call-overload]
    return step


def most_overlap(room: Any) -> Any:
    """Return how many tokens of text a window may share with the next one: three quarters of the `room` tokens that it holds.

    With more, the number of windows would grow without bound, and each token would be read many times. `room` is a number or
    an array.
    """
    return room * 3 // 4


def check_overlap(overlap: int, room: int, seq_len: int) -> None:
    """Raise UserError where windows share more tokens than `most_overlap` allows."""
    if overlap > most_overlap(room):
        raise UserError(f"task.overlap={overlap}: windows of data.seq_len={seq_len} tokens hold {room} of the text and may share at most"
                        f" {most_overlap(room)}; take a smaller overlap or longer rows")
