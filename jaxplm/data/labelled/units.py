"""Examples as units: what the encoder reads at once, with its special tokens, and what is to be learned from it.

A text or a pair is one unit, cut where it is too long; a tagged sentence, or a question with its context, is as many
overlapping windows as it needs, and nothing of it is lost.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxplm.data.labelled.encodings import Encoded, Encoder, check_overlap, most_overlap
from jaxplm.data.labelled.examples import Answers, Examples
from jaxplm.data.labelled.label_set import UNLABELLED, LabelSet
from jaxplm.data.labelled.word_map import WordMap, map_words

log = logging.getLogger("jaxplm")

# So large a share of tagged characters that no tag of a token fits is told.
_SHARED_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Units:
    """n units of T tokens, special ones included, of `examples` rows.

    Attributes:
      kind: of the task.
      ids: [T] int32, those of all units one after the other.
      token_types: [T] int8.
      offsets: [n + 1] int64; unit u is ids[offsets[u]:offsets[u + 1]].
      example: [n] int64, the row of `Examples` that each unit is of; in order, every row at least once.
      labels: classify [n] int32; multilabel [n, C] float32; regress [n] float32; tag [T] int32; qa [n, 2] int32, first
        and last token of the answer counted from the unit's start, (0, 0) where the window does not hold it (Devlin et
        al. 2019). Ids are `UNKNOWN` for labels that are not in the set and `UNLABELLED` where there is none to learn.
      weights: [n] float32, tag [T]: 1 where a label of the set is to be learned, else 0.
      examples: number of rows.
      truncated: rows that were cut.
      words: tag: which token predicts each word.
      chars: qa: [T, 2] int32, the characters of the context that each token stands for (first, one after the last);
        -1 for tokens that are not the context's.
    """

    kind: str
    ids: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    example: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    examples: int
    truncated: int = 0
    words: WordMap | None = None
    chars: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example)

    @property
    def lengths(self) -> np.ndarray:
        """[n] int64 tokens of each unit."""
        return np.diff(self.offsets)

    @property
    def fingerprint(self) -> str:
        """Hash of what the encoder reads: the same for the same units, whatever their labels."""
        content = hashlib.sha256()
        for array in (self.ids, self.token_types, self.offsets):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


def make_units(examples: Examples, tokenizer: Any, labels: LabelSet, kind: str, seq_len: int, overlap: int = 32) -> Units:
    """Tokenizes examples.

    The ids and types of classify, multilabel and regress are those of `tokenizer(text, pair, truncation=True,
    max_length=seq_len)`; the windows of tag and qa those of `tokenizer(…, stride=overlap,
    return_overflowing_tokens=True)`, where questions of more than half a window are cut, and the overlap is at most three
    quarters of what a window holds of the context. Words of pre-split sentences are encoded one by one, with a space before each
    by byte-level tokenizers; characters are joined to a text first.

    Args:
      examples: from `read_examples`.
      tokenizer: a fast transformers tokenizer; it is not changed.
      labels: the labels to learn.
      kind: of the task, that of `examples`.
      seq_len: L, tokens a unit, special ones included, at most.
      overlap: tokens that neighbouring windows share (tag, qa).

    Raises:
      UserError: the overlap is more than three quarters of a window.
    """
    if kind != examples.kind or kind != labels.kind:
        raise ValueError(f"task {kind}, examples of {examples.kind}, labels of {labels.kind}")
    if kind == "tag":
        return _tagged(examples, tokenizer, labels, seq_len, overlap)
    if kind == "qa":
        return _answered(examples, tokenizer, seq_len, overlap)
    encoded = Encoder(tokenizer).cut(examples.texts, examples.pairs, seq_len)
    if encoded.truncated:
        log.warning("%s: %s of %s rows (%.1f %%) are longer than data.seq_len=%d tokens and are cut there", examples.describe,
                    f"{encoded.truncated:,}", f"{len(examples):,}", 100 * encoded.truncated / len(examples), seq_len)
    values = labels.encode(examples.labels)
    known = values >= 0 if kind == "classify" else examples.labelled
    return _units(examples, encoded, values, known)


def _units(examples: Examples, encoded: Encoded, labels: np.ndarray, weighted: np.ndarray, words: WordMap | None = None,
           chars: np.ndarray | None = None) -> Units:
    return Units(examples.kind, encoded.ids, encoded.types, encoded.offsets, encoded.example, labels,
                 weighted.astype(np.float32), len(examples), encoded.truncated, words, chars)


def _tagged(examples: Examples, tokenizer: Any, labels: LabelSet, seq_len: int, overlap: int) -> Units:
    encoder = Encoder(tokenizer, split_words=not examples.characters)
    room = seq_len - encoder.special_tokens(pair=False)
    check_overlap(overlap, room, seq_len)
    inputs = examples.texts if examples.characters else examples.tokens
    assert inputs is not None and examples.tokens is not None
    encoded = encoder.windows(inputs, seq_len, np.full(len(examples), overlap), pair=False, split_words=not examples.characters)
    words, word_of = map_words(examples, encoded, overlap, room)
    silent = [word for word, token in zip((word for tokens in examples.tokens for word in tokens), words.token.tolist(), strict=True)
              if token < 0 and not word.isspace()]
    if silent:
        log.warning("%s: %s of %s tokens give no token of the model and are predicted O, such as %r", examples.describe,
                    f"{len(silent):,}", f"{len(words.token):,}", silent[0])
    tags = np.full(len(words.token), UNLABELLED, np.int32)
    tagged = np.repeat(examples.labelled, np.diff(words.offsets))
    tags[tagged] = labels.encode(examples.labels)
    values = np.where(word_of < 0, UNLABELLED, tags[word_of]) if len(tags) else np.full(len(word_of), UNLABELLED)
    if examples.characters:
        _warn_shared_tokens(examples, labels, words, values)
    return _units(examples, encoded, values.astype(np.int32), values >= 0, words)


def _warn_shared_tokens(examples: Examples, labels: LabelSet, words: WordMap, values: np.ndarray) -> None:
    """Tells how many tagged characters cannot get their tag even from a perfect model, as those of 서울은 in one token."""
    best = words.tags(labels.names, np.maximum(values, 0))
    pairs = [pair for given, found in zip(examples.labels, best, strict=True) if given for pair in zip(given, found, strict=True)]
    tagged = sum(given != "O" or found != "O" for given, found in pairs)
    lost = sum(given != found for given, found in pairs)
    if lost > _SHARED_SHARE * tagged:
        log.warning("%s: %s of %s tagged characters share a token of the model with characters of another tag and cannot get theirs"
                    " (%.1f %%); a tokenizer with shorter tokens can tell them apart", examples.describe, f"{lost:,}", f"{tagged:,}",
                    100 * lost / tagged)


def _answered(examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> Units:
    assert examples.pairs is not None
    encoder = Encoder(tokenizer)
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
    assert encoded.text is not None and encoded.chars is not None
    chars = np.where((encoded.text == 1)[:, None], encoded.chars, -1).astype(np.int32)
    spans, weighted = _target_spans(examples)
    return _units(examples, encoded, _answer_tokens(encoded, chars, spans), weighted[encoded.example], chars=chars)


def _target_spans(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """[examples, 2] the characters of the answer that is learned (the first; -1: there is none), [examples] bool: it is known."""
    spans = np.full((len(examples), 2), -1, np.int64)
    known = np.zeros(len(examples), bool)
    assert examples.pairs is not None
    for i, (label, context) in enumerate(zip(examples.labels, examples.pairs, strict=True)):
        if isinstance(label, Answers):
            known[i] = bool(label.spans) or not label.texts
            if label.spans:
                begin, end = label.spans[0]
                answer = context[begin:end]
                spans[i] = begin + len(answer) - len(answer.lstrip()), begin + len(answer.rstrip())
    return spans, known


def _answer_tokens(encoded: Encoded, chars: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """[n, 2] int32 first and last token of the answer in each window that holds all of it, else (0, 0)."""
    unit = np.repeat(np.arange(len(encoded.example)), encoded.lengths)
    begin, end = spans[encoded.example, 0], spans[encoded.example, 1]
    real = chars[:, 1] > chars[:, 0]  # of the context, and not an empty stretch of it
    starts = encoded.offsets[:-1]
    window_begin = np.minimum.reduceat(np.where(real, chars[:, 0], np.iinfo(np.int32).max), starts)
    window_end = np.maximum.reduceat(np.where(real, chars[:, 1], -1), starts)
    inside = real & (chars[:, 1] > begin[unit]) & (chars[:, 0] < end[unit])
    place = np.arange(len(unit)) - starts[unit]
    first = np.minimum.reduceat(np.where(inside, place, np.iinfo(np.int64).max), starts)
    last = np.maximum.reduceat(np.where(inside, place, -1), starts)
    holds = (begin >= 0) & (last >= 0) & (window_begin <= begin) & (window_end >= end)
    return np.where(holds[:, None], np.stack([first, last], 1), 0).astype(np.int32)


