"""Pairs of segments for a second objective: next sentence (Devlin et al. 2019) or sentence order (Lan et al. 2020).

    [CLS] A a a a a [SEP] B b b [SEP] [PAD]     token types 0 0 0 0 0 0 0 1 1 1 1 0

A row is a stretch of one text, of whole sentences as far as it has any that fit, cut into A and B at the end of a
sentence, else between words. Where it is cut and what becomes of it is drawn again for every step: "nsp" replaces B, in
half of the rows, by the end of a stretch of another text; "sop" changes the order of the two, in half of the rows. A
tenth of the stretches is shortened, because what the model meets later is shorter than a full row (Devlin et al.).

Nothing but the content may tell the label. Hence whole sentences: of two parts in the wrong order the first would end within
a sentence. For the same reason a replacement is chosen among several stretches of other texts: the one whose end is most like
the B that it replaces, that is, begins and ends with a sentence if B does, and has about as many tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxplm.config import choices
from jaxplm.data import rng
from jaxplm.data.corpus.store import TokenArrays
from jaxplm.data.mlm.rows import PairRows, SpecialIds
from jaxplm.data.rng import RowDraws
from jaxplm.errors import UserError

KINDS = tuple(filter(None, choices("model.pairs")))  # nsp and sop
_SPECIAL = 3  # [CLS], [SEP], [SEP]
_SHORTENED = 0.1
# The cut of a stretch aims at a share of its tokens between these.
_LEAST, _MOST = 0.1, 0.9
_TRIES = 8  # stretches that a replacement is chosen from: of eight, one is of another text unless one text is nearly the whole corpus
_CUT_SLACK = 16  # how far the end of a stretch may move back to fall between words
_MIN_TAIL = 8  # a stretch leaves at least this many tokens of a text to the next one
_BLOCK = 1 << 22  # tokens that are searched for sentences at once
_SENTENCE_ENDS = frozenset(".!?…。！？")
_CLOSING = "\"')]”’»」』）"
# Which random number is drawn; part of its coordinates. Masking has those from 0 on (`jaxplm.data.mlm.mask`).
_CUT, _SHORTEN, _LENGTH, _COIN, _OTHER = range(100, 105)


class Segments(NamedTuple):
    """Stretches of the store: [b] each, int64."""

    begins: np.ndarray
    lengths: np.ndarray  # tokens

    def at(self, index: np.ndarray) -> "Segments":
        return Segments(self.begins[index], self.lengths[index])

    def replaced(self, where: np.ndarray, other: "Segments") -> "Segments":
        """Return these segments, those of `other` where `where` [b] is True."""
        return Segments(np.where(where, other.begins, self.begins), np.where(where, other.lengths, self.lengths))


@dataclass(frozen=True, eq=False)
class PairPlan:
    """The stretches that rows are made of: row r is `lengths[r]` tokens from `starts[r]`, all of the text `text[r]`."""

    store: TokenArrays
    kind: str  # nsp, sop
    starts: np.ndarray  # [rows] int64
    lengths: np.ndarray  # [rows] int32, at least 2
    text: np.ndarray  # [rows] int64
    sentence_end: np.ndarray  # [V] bool: tokens that end a sentence
    seq_len: int

    @property
    def rows(self) -> int:
        return len(self.starts)

    @property
    def max_segments(self) -> int:
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of the texts, without special ones."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding, if all stretches are whole: some 5 % more than there are on average."""
        return self.tokens + _SPECIAL * self.rows

    @property
    def fill(self) -> float:
        """Share of the rows' places that is not padding, if all stretches are whole."""
        return self.real_tokens / max(1, self.rows * self.seq_len)

    def gather(self, row_ids: np.ndarray, special: SpecialIds, draws: RowDraws) -> PairRows:
        """Build rows from the store: cut each stretch in two, replace or exchange, and frame the parts.

        Args:
          row_ids: [b] integers in [0, rows).
          special: ids of the special tokens.
          draws: decide where a stretch is cut and what becomes of it.

        Returns:
          b rows.
        """
        share = _LEAST + (_MOST - _LEAST) * rng.uniform(draws(_CUT))
        begin, length = self.starts[row_ids], self.lengths[row_ids].astype(np.int64)
        shorter = 2 + (rng.uniform(draws(_LENGTH)) * (length - 1)).astype(np.int64)  # 2 ... length, each as likely
        shortened = (rng.uniform(draws(_SHORTEN)) < _SHORTENED) & (length > 2)
        length = np.where(shortened, _cut(self, begin, length, shorter, 2), length)
        a_length = _cut(self, begin, length, np.rint(share * length), 1)
        a, b = Segments(begin, a_length), Segments(begin + a_length, length - a_length)
        labels = rng.uniform(draws(_COIN)) < 0.5
        if self.kind == "nsp":
            replaced = np.flatnonzero(labels)
            found, other = _replacements(self, row_ids[replaced], a.lengths[replaced], b.at(replaced), draws(_OTHER)[replaced])
            labels[replaced] = found
            b.begins[replaced], b.lengths[replaced] = other
        else:
            a, b = a.replaced(labels, b), b.replaced(labels, a)
        return _framed(self.store, self.seq_len, special, a, b, labels.astype(np.int32))


def sentence_ends(tokens: list[str]) -> np.ndarray:
    """Return [V] bool: which of a vocabulary's V entries, in the order of their ids, end with "." or the like.

    A quotation mark may follow: "##.", '."', also "다." of a Unigram model. "Mr." is taken for an end, which only moves a cut.
    """
    return np.array([token.rstrip(_CLOSING)[-1:] in _SENTENCE_ENDS for token in tokens], bool)


def plan_pairs(store: TokenArrays, seq_len: int, kind: str, sentence_end: np.ndarray, texts: np.ndarray | None = None,
               source: str = "the data") -> PairPlan:
    """Divide texts into stretches of at most `seq_len` - 3 tokens: of whole sentences where possible, else of whole words.

    Args:
      store: the tokenized texts.
      seq_len: L, tokens per row, special ones included.
      kind: nsp or sop.
      sentence_end: [V] bool by token id, see `sentence_ends`.
      texts: indices of the texts to use; all of them when None.
      source: how messages call the texts.

    Returns:
      The plan. Stretches of a single token, which make no pair, are left out.

    Raises:
      UserError: no text has two tokens; or, for nsp, only one has.
      ValueError: unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    which = np.arange(len(store.offsets) - 1) if texts is None else np.asarray(texts)
    starts, lengths, text = _stretches(store, which, seq_len - _SPECIAL, _sentences(store, sentence_end))
    wide = lengths >= 2
    starts, lengths, text = starts[wide], lengths[wide].astype(np.int32), text[wide]
    if not starts.size:
        raise UserError(f"model.pairs={kind}: no text of {source} has two tokens to make a pair of")
    if kind == "nsp" and (text == text[0]).all():
        raise UserError(f"model.pairs=nsp: only one text of {source} is there to use, and segments that do not follow come from another"
                        " one; give more texts (data.lines says how a file is divided), or use model.pairs=sop")
    return PairPlan(store, kind, starts, lengths, text, sentence_end, seq_len)


def _sentences(store: TokenArrays, sentence_end: np.ndarray) -> np.ndarray:
    """Return [sentences] int64, ascending: where a sentence starts behind the end of another one."""
    found = []
    for begin in range(1, len(store.tokens), _BLOCK):
        here = slice(begin, min(begin + _BLOCK, len(store.tokens)))
        before = np.asarray(store.tokens[here.start - 1 : here.stop - 1])
        found.append(here.start + np.flatnonzero(sentence_end[before] & np.asarray(store.word_starts[here])))
    return np.concatenate([*found, np.zeros(0, np.int64)])


def _stretches(store: TokenArrays, texts: np.ndarray, room: int,
               sentences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, length and text of each stretch: as many whole sentences as fit, unless that is less than half the room."""
    parts = []
    offsets = np.asarray(store.offsets, np.int64)
    text, at, end = texts, offsets[texts], offsets[texts + 1]
    while text.size:  # one off every text that is not used up
        long = end - at > room
        cut = np.where(long, np.minimum(at + room, end - min(_MIN_TAIL, room // 4)), end)
        nearest = np.searchsorted(sentences, cut, side="right") - 1
        by_sentence = sentences[nearest] if sentences.size else np.zeros_like(cut)
        whole = long & (nearest >= 0) & (by_sentence >= at + room // 2)
        cut = np.where(whole, by_sentence, np.where(long, at + _end_with_a_word(store, at, cut - at, end - at), cut))
        parts.append((at, cut - at, text))
        text, at, end = text[long], cut[long], end[long]
    starts, lengths, of = (np.concatenate(column) for column in zip(*parts, strict=True))
    return starts, lengths, of


def _replacements(plan: PairPlan, row_ids: np.ndarray, a_lengths: np.ndarray, b: Segments,
                  keys: np.ndarray) -> tuple[np.ndarray, Segments]:
    """Look for ends of stretches of other texts to replace B with.

    Args:
      row_ids, a_lengths, b, keys: of the b rows: their stretches, the tokens of A, B itself, and random bits.

    Returns:
      [b] bool, whether one was found, and what it is; B itself where none was.
    """
    store, room = plan.store, plan.seq_len - _SPECIAL
    begin, length = b.begins.copy(), b.lengths.copy()

    def ends_sentence(place: np.ndarray) -> np.ndarray:
        return plan.sentence_end[np.take(store.tokens, place)]

    opens, closes = ends_sentence(b.begins - 1), ends_sentence(b.begins + b.lengths - 1)
    none = 3 * plan.seq_len
    least = np.full(len(row_ids), none)  # the difference between B and what was found
    for attempt in range(_TRIES):
        other = rng.below(rng.fold(keys, np.array([attempt])), plan.rows)
        whole = plan.lengths[other].astype(np.int64)
        # What is cut off is at least so long that the rest fits beside A.
        cut = _cut(plan, plan.starts[other], whole, whole - b.lengths, np.maximum(whole - (room - a_lengths), 1))
        found = plan.starts[other] + cut
        unlike = (ends_sentence(found - 1) != opens).astype(np.int64) + (ends_sentence(found + whole - cut - 1) != closes)
        difference = np.abs(whole - cut - b.lengths) + plan.seq_len * unlike
        nearer = (plan.text[other] != plan.text[row_ids]) & (difference < least)
        begin[nearer], length[nearer] = found[nearer], (whole - cut)[nearer]
        least[nearer] = difference[nearer]
    return least < none, Segments(begin, length)


def _cut(plan: PairPlan, begin: np.ndarray, length: np.ndarray, wanted: np.ndarray, lowest: np.ndarray | int) -> np.ndarray:
    """Return [b] the tokens of a stretch's first part, from `lowest` to `length` - 1.

    A sentence ends there, as near to `wanted` as possible; else a word does; else anything.
    """
    tokens, word_starts = plan.store.tokens, plan.store.word_starts
    wanted = np.clip(wanted, lowest, length - 1).astype(np.int64)
    places = np.arange(1, int(length.max(initial=2)))[None]
    at = np.minimum(begin[:, None] + places, len(tokens) - 1)
    word = np.take(word_starts, at)
    sentence = word & plan.sentence_end[np.take(tokens, at - 1)]
    distance = np.abs(places - wanted[:, None]) + plan.seq_len * (2 - word.astype(np.int64) - sentence)
    distance[(places < np.reshape(lowest, (-1, 1))) | (places >= length[:, None])] = 9 * plan.seq_len
    return distance.argmin(axis=1) + 1


def _end_with_a_word(store: TokenArrays, begin: np.ndarray, length: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return [b] `length` or a little less, so that a word ends there if one does nearby; `whole` [b] is where the text ends."""
    out, open_ = length.copy(), length < whole
    for back in range(_CUT_SLACK + 1):
        shorter = length - back
        ends = open_ & (2 * shorter > length) & np.take(store.word_starts, begin + shorter, mode="clip")
        out[ends] = shorter[ends]
        open_ &= ~ends
    return out


def _framed(store: TokenArrays, seq_len: int, special: SpecialIds, a: Segments, b: Segments, labels: np.ndarray) -> PairRows:
    """Build [CLS] A [SEP] B [SEP] and padding for each row."""
    place = np.arange(seq_len)[None]
    first_sep, last_sep = (a.lengths + 1)[:, None], (a.lengths + b.lengths + 2)[:, None]
    in_a, in_b = (place > 0) & (place < first_sep), (place > first_sep) & (place < last_sep)
    source = np.where(in_a, a.begins[:, None] + place - 1, np.where(in_b, b.begins[:, None] + place - first_sep - 1, 0))
    ids = np.take(store.tokens, source).astype(np.int32)
    ids[~(in_a | in_b)] = special.sep
    ids[:, 0] = special.cls
    real = place <= last_sep
    ids[~real] = special.pad
    words = np.take(store.word_starts, source)
    words |= (place == 1) | (place == first_sep + 1)
    maskable = in_a | in_b
    # Also where the text itself contains a special token, or an unknown one: neither is a word to be predicted.
    for token in special:
        maskable &= ids != token
    return PairRows(ids, real.astype(np.int32), np.where(real, place, 0).astype(np.int32), words & maskable, maskable,
                    ((place > first_sep) & real).astype(np.int32), labels)
