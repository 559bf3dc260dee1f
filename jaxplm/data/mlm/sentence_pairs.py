"""Pairs of segments for a second objective: next sentence (Devlin et al. 2019) or sentence order (Lan et al. 2020).

    [CLS] A a a a a [SEP] B b b [SEP] [PAD]     token types 0 0 0 0 0 0 0 1 1 1 1 0

A row is a stretch of one text, of whole sentences as far as it has any that fit, cut into A and B at the end of a
sentence, else between words. Where it is cut and what becomes of it is drawn anew for every step: "nsp" replaces B, in
half of the rows, by the end of a stretch of another text; "sop" changes the order of the two, in half of the rows. A
tenth of the stretches is shortened, because what the model meets later is shorter than a full row (Devlin et al.).

The answer must not be seen in anything but the content. Hence whole sentences: of two parts in the wrong order the first
would end within a sentence. And of several stretches of other texts the one is taken whose end is most like the B that it
replaces: it begins and ends with a sentence if that does, and has about as many tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxplm.config import choices
from jaxplm.data import rng
from jaxplm.data.mlm.pack import Rows, SpecialIds, TokenArrays
from jaxplm.errors import UserError

KINDS = tuple(filter(None, choices("model.pairs")))  # nsp and sop
_SPECIAL = 3  # [CLS], [SEP], [SEP]
_SHORTENED = 0.1
# The cut of a stretch aims at a share of its tokens between these.
_LEAST, _MOST = 0.1, 0.9
_TRIES = 8  # stretches that a replacement is chosen from: one is another text's unless nearly all are one text's
_CUT_SLACK = 16  # how far the end of a stretch may move back to fall between words
_MIN_TAIL = 8  # a stretch leaves at least so many tokens of a text to the next one
_BLOCK = 1 << 22  # tokens that are searched for sentences at once
_SENTENCE_ENDS = frozenset(".!?…。！？")
_CLOSING = "\"')]”’»」』）"
# Which random number is drawn; part of its coordinates. Masking has those from 0 on (`jaxplm.data.mlm.mask`).
_CUT, _SHORTEN, _LENGTH, _COIN, _OTHER = range(100, 105)


class Pairs(NamedTuple):
    """What rows of pairs have besides `Rows`."""

    token_types: np.ndarray  # [b, L] int32: 0 in [CLS] A [SEP] and padding, 1 in B [SEP]
    labels: np.ndarray  # [b] int32: 0 = B follows A in a text, 1 = it does not


@dataclass(frozen=True, eq=False)
class PairPlan:
    """The stretches that rows are made of: row r is `lengths[r]` tokens from `starts[r]`, all of the text `text[r]`."""

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


def sentence_ends(tokens: list[str]) -> np.ndarray:
    """[V] bool: which of a vocabulary's V entries, in the order of their ids, end with "." or the like and maybe a quotation
    mark behind it: "##.", also "다." of a Unigram model. What is wrong about "Mr." costs nothing but a cut elsewhere."""
    return np.array([token.rstrip(_CLOSING)[-1:] in _SENTENCE_ENDS for token in tokens], bool)


def plan_pairs(
    store: TokenArrays,
    seq_len: int,
    kind: str,
    sentence_end: np.ndarray,
    texts: np.ndarray | None = None,
    source: str = "the data",
) -> PairPlan:
    """Divides texts into stretches of at most `seq_len` - 3 tokens: of whole sentences where possible, else of whole words.

    Args:
        store: the tokenized texts.
        seq_len: L, tokens a row, special ones included.
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
                        " one; give more texts (data.lines says how a file is divided), or use model.pairs=sop")  # fmt: skip
    return PairPlan(kind, starts, lengths, text, sentence_end, seq_len)


def _sentences(store: TokenArrays, sentence_end: np.ndarray) -> np.ndarray:
    """[sentences] int64, ascending: where a sentence starts behind the end of another one."""
    found = []
    for begin in range(1, len(store.tokens), _BLOCK):
        here = slice(begin, min(begin + _BLOCK, len(store.tokens)))
        before = np.asarray(store.tokens[here.start - 1 : here.stop - 1])
        found.append(here.start + np.flatnonzero(sentence_end[before] & np.asarray(store.word_starts[here])))
    return np.concatenate([*found, np.zeros(0, np.int64)])


def _stretches(
    store: TokenArrays, texts: np.ndarray, room: int, sentences: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and text of each stretch: as many whole sentences as fit, unless that is less than half the room."""
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


def gather_pairs(
    store: TokenArrays,
    plan: PairPlan,
    row_ids: np.ndarray,
    special: SpecialIds,
    *,
    key: tuple[int, ...],
    row_index: np.ndarray,
) -> tuple[Rows, Pairs]:
    """Builds rows from the store.

    Args:
        store: the one that the plan was made for.
        plan: the stretches.
        row_ids: [b] integers in [0, plan.rows).
        special: ids of the special tokens.
        key: what is drawn depends on it besides the row, such as (seed, step).
        row_index: [b] number of each row among all the rows of that key.

    Returns:
        b rows, each array [b, L], and the pairs' types and labels.
    """

    def draw(purpose: int) -> np.ndarray:
        return rng.fold(rng.key(*key, purpose), row_index)

    share = _LEAST + (_MOST - _LEAST) * rng.uniform(draw(_CUT))
    begin, length = plan.starts[row_ids], plan.lengths[row_ids].astype(np.int64)
    shorter = 2 + (rng.uniform(draw(_LENGTH)) * (length - 1)).astype(np.int64)  # 2 ... length, as likely each
    shortened = (rng.uniform(draw(_SHORTEN)) < _SHORTENED) & (length > 2)
    length = np.where(shortened, _cut(store, plan, begin, length, shorter, 2), length)
    a_length = _cut(store, plan, begin, length, np.rint(share * length), 1)
    b_begin, b_length = begin + a_length, length - a_length
    coin = rng.uniform(draw(_COIN)) < 0.5
    if plan.kind == "nsp":
        drawn = np.flatnonzero(coin)
        coin[drawn], b_begin[drawn], b_length[drawn] = _replacements(
            store, plan, row_ids[drawn], a_length[drawn], b_begin[drawn], b_length[drawn], draw(_OTHER)[drawn]
        )
        a_begin = begin
    else:
        a_begin, b_begin = np.where(coin, b_begin, begin), np.where(coin, begin, b_begin)
        a_length, b_length = np.where(coin, b_length, a_length), np.where(coin, a_length, b_length)
    rows, types = _rows(store, plan.seq_len, special, a_begin, a_length, b_begin, b_length)
    return rows, Pairs(types, coin.astype(np.int32))


def _replacements(
    store: TokenArrays,
    plan: PairPlan,
    row_ids: np.ndarray,
    a_length: np.ndarray,
    b_begin: np.ndarray,
    b_length: np.ndarray,
    keys: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The end of a stretch of another text in the place of B: [b] whether one was found, where it begins, and its tokens."""
    room = plan.seq_len - _SPECIAL
    begin, length = b_begin.copy(), b_length.copy()

    def ends_sentence(place: np.ndarray) -> np.ndarray:
        return plan.sentence_end[np.take(store.tokens, place)]

    opens, closes = ends_sentence(b_begin - 1), ends_sentence(b_begin + b_length - 1)
    none = 3 * plan.seq_len
    least = np.full(len(row_ids), none)  # how much B and what is found differ
    for attempt in range(_TRIES):
        other = rng.below(rng.fold(keys, np.array([attempt])), plan.rows)
        whole = plan.lengths[other].astype(np.int64)
        # What is cut off is at least so long that the rest fits beside A.
        cut = _cut(store, plan, plan.starts[other], whole, whole - b_length, np.maximum(whole - (room - a_length), 1))
        found = plan.starts[other] + cut
        unlike = (ends_sentence(found - 1) != opens).astype(np.int64) + (ends_sentence(found + whole - cut - 1) != closes)
        differ = np.abs(whole - cut - b_length) + plan.seq_len * unlike
        nearer = (plan.text[other] != plan.text[row_ids]) & (differ < least)
        begin[nearer], length[nearer] = found[nearer], (whole - cut)[nearer]
        least[nearer] = differ[nearer]
    return least < none, begin, length


def _cut(
    store: TokenArrays, plan: PairPlan, begin: np.ndarray, length: np.ndarray, wanted: np.ndarray, lowest: np.ndarray | int
) -> np.ndarray:
    """[b] tokens of a stretch's first part, from `lowest` to `length` - 1: a sentence ends there, as near to `wanted` as
    possible; else a word does; else anything."""
    wanted = np.clip(wanted, lowest, length - 1).astype(np.int64)
    places = np.arange(1, int(length.max(initial=2)))[None]
    at = np.minimum(begin[:, None] + places, len(store.tokens) - 1)
    word = np.take(store.word_starts, at)
    sentence = word & plan.sentence_end[np.take(store.tokens, at - 1)]
    distance = np.abs(places - wanted[:, None]) + plan.seq_len * (2 - word.astype(np.int64) - sentence)
    distance[(places < np.reshape(lowest, (-1, 1))) | (places >= length[:, None])] = 9 * plan.seq_len
    return distance.argmin(axis=1) + 1


def _end_with_a_word(store: TokenArrays, begin: np.ndarray, length: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """[b] `length` or a little less, so that a word ends there if one does nearby; `whole` [b] is where the text ends."""
    out, open_ = length.copy(), length < whole
    for back in range(_CUT_SLACK + 1):
        shorter = length - back
        ends = open_ & (2 * shorter > length) & np.take(store.word_starts, begin + shorter, mode="clip")
        out[ends] = shorter[ends]
        open_ &= ~ends
    return out


def _rows(
    store: TokenArrays,
    length: int,
    special: SpecialIds,
    a_begin: np.ndarray,
    a_length: np.ndarray,
    b_begin: np.ndarray,
    b_length: np.ndarray,
) -> tuple[Rows, np.ndarray]:
    """[CLS] A [SEP] B [SEP] and padding, each array [b, L]; and the token types."""
    place = np.arange(length)[None]
    first_sep, last_sep = (a_length + 1)[:, None], (a_length + b_length + 2)[:, None]
    in_a, in_b = (place > 0) & (place < first_sep), (place > first_sep) & (place < last_sep)
    source = np.where(in_a, a_begin[:, None] + place - 1, np.where(in_b, b_begin[:, None] + place - first_sep - 1, 0))
    ids = np.take(store.tokens, source).astype(np.int32)
    ids[~(in_a | in_b)] = special.sep
    ids[:, 0] = special.cls
    real = place <= last_sep
    ids[~real] = special.pad
    words = np.take(store.word_starts, source)
    words |= (place == 1) | (place == first_sep + 1)
    maskable = in_a | in_b
    # Also where the text itself spells a special token out, or was not understood: that is no word to be guessed.
    for token in special:
        maskable &= ids != token
    rows = Rows(ids, real.astype(np.int32), np.where(real, place, 0).astype(np.int32), words & maskable, maskable)
    return rows, ((place > first_sep) & real).astype(np.int32)
