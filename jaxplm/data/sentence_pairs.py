"""Pairs of segments for a second objective: next sentence (Devlin et al. 2019) or sentence order (Lan et al. 2020).

    [CLS] A a a a a [SEP] B b b [SEP] [PAD]     token types 0 0 0 0 0 0 0 1 1 1 1 0

A row is a stretch of one text, cut into A and B at the end of a sentence where there is one, else between words. Where
it is cut and what becomes of it is drawn anew for every step: "nsp" replaces B, in half of the rows, by the end of a
stretch of another text; "sop" changes the order of the two, in half of the rows. A tenth of the stretches is shortened
by a random number of tokens, because what the model meets later is shorter than a full row (Devlin et al.).

A B of another text must not be known by anything but its content. So it begins, like any B, where a sentence does, ends
where a stretch does, and has about as many tokens as the B that it replaces; in a full row the front of A makes room for
a few more, so that the row is as full as others.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxplm.data import rng
from jaxplm.data.pack import Rows, SpecialIds, TokenArrays, plan_rows
from jaxplm.errors import UserError

KINDS = ("nsp", "sop")
_SPECIAL = 3  # [CLS], [SEP], [SEP]
_SHORTENED = 0.1
# The cut of a stretch aims at a share of its tokens between these.
_LEAST, _MOST = 0.1, 0.9
_TRIES = 8  # for a stretch of another text: enough unless nearly all the tokens are one text's
_END_SLACK = 16  # how far a shortened segment may move back to end with a word
_SENTENCE_ENDS = frozenset(".!?…。！？")
_CLOSING = "\"')]”’»」』）"
# Which random number is drawn; part of its coordinates. Masking has those from 0 on (`jaxplm.data.mask`).
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
    seed: int = 0,
    texts: np.ndarray | None = None,
    source: str = "the data",
) -> PairPlan:
    """Divides texts into stretches of at most `seq_len` - 3 tokens, between words where possible.

    Args:
        store: the tokenized texts.
        seq_len: L, tokens a row, special ones included.
        kind: nsp or sop.
        sentence_end: [V] bool by token id, see `sentence_ends`.
        seed: of the order of the stretches.
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
    pieces = plan_rows(store, seq_len - _SPECIAL + 2, "documents", seed, texts)  # which leaves room for two special tokens
    wide = pieces.lengths >= 2
    starts, lengths = pieces.starts[wide], pieces.lengths[wide]
    text = np.searchsorted(np.asarray(store.offsets), starts, side="right") - 1
    if not starts.size:
        raise UserError(f"model.pairs={kind}: no text of {source} has two tokens to make a pair of")
    if kind == "nsp" and (text == text[0]).all():
        raise UserError(f"model.pairs=nsp: only one text of {source} is there to use, and segments that do not follow come from another"
                        " one; give more texts (data.lines says how a file is divided), or use model.pairs=sop")  # fmt: skip
    return PairPlan(kind, starts, lengths, text, sentence_end, seq_len)


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
    shortened = rng.uniform(draw(_SHORTEN)) < _SHORTENED
    length = np.where(shortened, _end_with_a_word(store, begin, shorter, length, 2), length)
    wanted = np.clip(np.rint(share * length).astype(np.int64), 1, length - 1)
    a_length = _cut(store, plan, begin, length, wanted, np.ones_like(wanted), length - 1)
    b_begin, b_length = begin + a_length, length - a_length
    coin = rng.uniform(draw(_COIN)) < 0.5
    if plan.kind == "nsp":
        other, found = _other_texts(plan, row_ids, b_length, draw(_OTHER))
        coin &= found
        other_begin, other_length, excess = _replacement(store, plan, other, a_length, b_length)
        b_begin, b_length = np.where(coin, other_begin, b_begin), np.where(coin, other_length, b_length)
        dropped = np.where(coin & (excess > 0), _to_a_word(store, begin, excess, a_length - 1), 0)
        a_begin, a_length = begin + dropped, a_length - dropped
    else:
        a_begin, b_begin = np.where(coin, b_begin, begin), np.where(coin, begin, b_begin)
        a_length, b_length = np.where(coin, b_length, a_length), np.where(coin, a_length, b_length)
    rows, types = _rows(store, plan.seq_len, special, a_begin, a_length, b_begin, b_length)
    return rows, Pairs(types, coin.astype(np.int32))


def _other_texts(
    plan: PairPlan, row_ids: np.ndarray, tokens: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[b] a random row of another text, of more than `tokens` [b] where the tries find one; and whether they found any."""
    other, found, enough = row_ids.copy(), np.zeros(len(row_ids), bool), np.zeros(len(row_ids), bool)
    for attempt in range(_TRIES):
        drawn = rng.below(rng.fold(keys, np.array([attempt])), plan.rows)
        elsewhere = plan.text[drawn] != plan.text[row_ids]
        wide = elsewhere & (plan.lengths[drawn] > tokens)
        other = np.where((elsewhere & ~found) | (wide & ~enough), drawn, other)
        found, enough = found | elsewhere, enough | wide
    return other, found


def _replacement(
    store: TokenArrays, plan: PairPlan, other: np.ndarray, a_length: np.ndarray, b_length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The end of the stretches `other` in the place of B: where it begins, its tokens, and how many too many, [b] each."""
    room = plan.seq_len - _SPECIAL
    begin, length = plan.starts[other], plan.lengths[other].astype(np.int64)
    full = a_length + b_length >= room - _END_SLACK
    wanted = length - b_length
    # At most half of A would have to make room.
    lowest, highest = wanted - a_length // 2, np.where(full, wanted, wanted + b_length // 2)
    cut = _cut(store, plan, begin, length, np.clip(wanted, 1, length - 1), lowest, highest)
    return begin + cut, length - cut, a_length + length - cut - np.where(full, a_length + b_length, room)


def _cut(
    store: TokenArrays,
    plan: PairPlan,
    begin: np.ndarray,
    length: np.ndarray,
    wanted: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
) -> np.ndarray:
    """[b] tokens of a stretch's first part: a sentence ends there, as near to `wanted` as there is one between `lowest`
    and `highest`; else a word does; each [b]."""
    places = np.arange(1, int(length.max(initial=2)))[None]  # tokens of A that are looked at
    at = np.minimum(begin[:, None] + places, len(store.tokens) - 1)
    inside = places < length[:, None]
    word = np.take(store.word_starts, at)
    sentence = word & plan.sentence_end[np.take(store.tokens, at - 1)]
    distance = np.abs(places - wanted[:, None]) + plan.seq_len * (2 - word.astype(np.int64) - sentence)
    distance[(places < lowest[:, None]) | (places > highest[:, None])] += 3 * plan.seq_len
    distance[~inside] = 9 * plan.seq_len
    return distance.argmin(axis=1) + 1


def _to_a_word(store: TokenArrays, begin: np.ndarray, skipped: np.ndarray, most: np.ndarray) -> np.ndarray:
    """[b] `skipped` or a little more, but not more than `most`, so that a word begins there."""
    out, open_ = skipped.copy(), np.ones(len(begin), bool)
    for ahead in range(_END_SLACK + 1):
        later = skipped + ahead
        starts = open_ & (later <= most) & np.take(store.word_starts, np.minimum(begin + later, len(store.tokens) - 1))
        out[starts] = later[starts]
        open_ &= ~starts
    return out


def _end_with_a_word(store: TokenArrays, begin: np.ndarray, length: np.ndarray, whole: np.ndarray, least: int) -> np.ndarray:
    """[b] `length` or a little less, but not less than `least`, so that a word ends there; `whole` [b] stays as it is."""
    out, open_ = length.copy(), length < whole
    for back in range(_END_SLACK + 1):
        shorter = length - back
        ends = open_ & (shorter >= least) & np.take(store.word_starts, np.minimum(begin + shorter, len(store.tokens) - 1))
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
