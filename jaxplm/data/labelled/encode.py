"""Examples through the tokenizer: texts cut where they are too long, sentences and contexts as overlapping windows."""

import logging
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from jaxplm.data.labelled.encodings import Encoded, TokenizerEncoder, check_overlap, most_overlap
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.word_map import WordMap, map_words

log = logging.getLogger("jaxplm")


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedWords(Encoded):
    """Windows of sentences that come as W words in all.

    Attributes:
      words: which token predicts each word.
      target_words: [T] int64, the word whose label each token learns, -1 for tokens that learn nothing. A word is learned
        once, where it is predicted, however many windows hold it.
    """

    words: WordMap
    target_words: np.ndarray


def encode_texts(examples: Examples, tokenizer: Any, seq_len: int) -> Encoded:
    """Encode each text or pair as one unit, as `tokenizer(text, pair, truncation=True, max_length=seq_len)` does.

    Args:
      examples: n texts, or n pairs.
      tokenizer: a fast transformers tokenizer; it is not changed.
      seq_len: L, tokens per unit, special ones included, at most.

    Returns:
      n units. One warning says how many were cut.
    """
    encoded = TokenizerEncoder(tokenizer).cut(examples.texts, examples.pairs, seq_len)
    if encoded.truncated:
        log.warning("%s: %s of %s rows (%.1f %%) are longer than data.seq_len=%d tokens and are cut there", examples.describe,
                    f"{encoded.truncated:,}", f"{len(examples):,}", 100 * encoded.truncated / len(examples), seq_len)
    return encoded


def encode_words(examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> EncodedWords:
    """Encode sentences of words in windows, as `tokenizer(words, stride=overlap, return_overflowing_tokens=True, ...)` does.

    Words are encoded one by one, with a space before each by byte-level tokenizers; words that are characters
    (`Examples.characters`) are joined to a text first.

    Args:
      examples: with `tokens`.
      tokenizer, seq_len: as in `encode_texts`.
      overlap: tokens that neighbouring windows share.

    Returns:
      Each sentence in as many windows as it needs. One warning says how many words give no token of the model.

    Raises:
      UserError: the overlap is more than three quarters of a window.
    """
    encoder = TokenizerEncoder(tokenizer, split_words=not examples.characters)
    room = seq_len - encoder.special_tokens(pair=False)
    check_overlap(overlap, room, seq_len)
    inputs = examples.texts if examples.characters else examples.tokens
    assert inputs is not None and examples.tokens is not None
    encoded = encoder.windows(inputs, seq_len, np.full(len(examples), overlap), pair=False)
    words, target_words = map_words(examples, encoded, overlap, room)
    flat = (word for tokens in examples.tokens for word in tokens)
    lost = [word for word, token in zip(flat, words.token.tolist(), strict=True) if token < 0 and word.strip()]
    if lost:
        log.warning("%s: %s of %s tokens give no token of the model and get no prediction of their own, such as %r", examples.describe,
                    f"{len(lost):,}", f"{len(words.token):,}", lost[0])
    given = {field.name: getattr(encoded, field.name) for field in fields(encoded)}
    return EncodedWords(**given, words=words, target_words=target_words)


def encode_questions(examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> Encoded:
    """Encode questions with their contexts in windows over the context, as `tokenizer(..., stride=overlap, ...)` does.

    Questions of more than half a window are cut, and the overlap is at most three quarters of what a window holds of
    the context.

    Args:
      examples: the questions are `texts`, the contexts are `pairs`.
      tokenizer, seq_len, overlap: as in `encode_words`.

    Returns:
      Each question in as many windows as its context needs; `chars` are -1 for tokens that are not the context's.

    Raises:
      UserError: the overlap is more than three quarters of a window.
    """
    assert examples.pairs is not None
    encoder = TokenizerEncoder(tokenizer)
    room = seq_len - encoder.special_tokens(pair=True)
    check_overlap(overlap, room, seq_len)
    sizes, offsets = encoder.lengths(examples.texts)
    longest = room // 2
    long = np.flatnonzero(sizes > longest)
    questions = list(examples.texts)
    for i in long.tolist():
        questions[i] = questions[i][: offsets[i][longest - 1][1]]
    if len(long):
        log.warning("%s: %d questions of more than %d tokens, half a window of data.seq_len=%d, are cut", examples.describe, len(long),
                    longest, seq_len)
        sizes[long] = encoder.lengths([questions[i] for i in long.tolist()])[0]
    overlaps = np.minimum(overlap, most_overlap(room - sizes))
    encoded = encoder.windows(list(zip(questions, examples.pairs, strict=True)), seq_len, overlaps, pair=True)
    assert encoded.sequence_ids is not None and encoded.chars is not None
    return replace(encoded, chars=np.where((encoded.sequence_ids == 1)[:, None], encoded.chars, -1).astype(np.int32))
