"""Packing loses nothing, and what shares a row stays apart."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.data.mlm.pack import RowPlan, plan_rows
from jaxplm.data.mlm.rows import Rows, SpecialIds
from jaxplm.errors import UserError

SPECIAL = SpecialIds(cls=1, sep=2, pad=0, mask=3)
FIRST_ID = 10  # tokens of the fake stores count up from here, so each can be told apart


@dataclass
class Store:
    tokens: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray


def make_store(lengths, word_starts=None) -> Store:
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)
    total = int(offsets[-1])
    starts = np.ones(total, bool) if word_starts is None else np.asarray(word_starts, bool)
    return Store(np.arange(FIRST_ID, FIRST_ID + total, dtype=np.uint32), starts, offsets)


def all_rows(plan: RowPlan) -> Rows:
    return plan.gather(np.arange(plan.rows), SPECIAL)


lengths_st = st.lists(st.integers(1, 60) | st.integers(1, 5), min_size=1, max_size=150)
seq_len_st = st.integers(4, 40)


@settings(deadline=None)
@given(lengths_st, seq_len_st, st.sampled_from(["documents", "stream"]), st.integers(0, 3))
def test_every_token_exactly_once(lengths, seq_len, packing, seed):
    store = make_store(lengths)
    plan = plan_rows(store, seq_len, packing, seed)
    rows = all_rows(plan)
    assert sorted(rows.input_ids[rows.maskable]) == store.tokens.tolist()
    assert plan.tokens == len(store.tokens)
    assert plan.real_tokens == np.count_nonzero(rows.segment_ids)
    assert plan.max_segments == rows.segment_ids.max()
    assert (np.diff(plan.row_ptr) > 0).all()


@pytest.mark.slow
@settings(deadline=None)
@given(lengths_st, seq_len_st, st.randoms(use_true_random=False))
def test_documents_rows_hold_framed_pieces_of_single_texts(lengths, seq_len, random):
    store = make_store(lengths, [random.random() < 0.6 for _ in range(sum(lengths))])
    text_of = np.repeat(np.arange(len(lengths)), lengths)
    rows = all_rows(plan_rows(store, seq_len, "documents"))
    for ids, segments, positions, words, maskable in zip(*rows, strict=True):
        present = segments[segments > 0]
        assert (np.diff(present) >= 0).all() and set(present) == set(range(1, present.max() + 1))
        assert (segments[len(present) :] == 0).all() and (ids[len(present) :] == SPECIAL.pad).all()
        for segment in range(1, present.max() + 1):
            at = np.flatnonzero(segments == segment)
            piece = ids[at]
            assert (positions[at] == np.arange(len(at))).all()
            assert piece[0] == SPECIAL.cls and piece[-1] == SPECIAL.sep and len(piece) >= 3
            inner = piece[1:-1].astype(int)
            assert (np.diff(inner) == 1).all()  # contiguous in the store
            assert len(set(text_of[inner - FIRST_ID])) == 1
            assert not maskable[at[0]] and not maskable[at[-1]] and maskable[at[1:-1]].all()
            assert words[at[1]]
            assert (words[at[2:-1]] == store.word_starts[inner[1:] - FIRST_ID]).all()


@settings(deadline=None)
@given(lengths_st, seq_len_st)
def test_stream_rows_are_the_joined_texts(lengths, seq_len):
    store = make_store(lengths)
    rows = all_rows(plan_rows(store, seq_len, "stream"))
    assert set(np.unique(rows.segment_ids)) <= {0, 1}
    ends = set((FIRST_ID + store.offsets[1:] - 1).tolist())  # the last token of each text
    real = rows.segment_ids > 0
    assert (rows.position_ids[real] == np.broadcast_to(np.arange(seq_len), real.shape)[real]).all()
    seen = []
    for row in range(len(real)):
        ids = rows.input_ids[row, real[row]].tolist()
        assert ids[0] == SPECIAL.cls and ids[-1] == SPECIAL.sep and SPECIAL.cls not in ids[1:]
        for before, here in zip(ids[1:], ids[2:], strict=False):
            assert here != SPECIAL.sep or before != SPECIAL.sep  # no empty text
            if before in ends:
                assert here == SPECIAL.sep
        for here, after in zip(ids[1:-1], ids[2:-1], strict=False):
            assert here in ends or here == SPECIAL.sep or after == here + 1
        seen += [i for i in ids if i >= FIRST_ID]
        if row + 1 < len(real):  # only separators on the edges cost a place
            assert len(ids) >= seq_len - 2
    assert seen == store.tokens.tolist()  # in order


def test_the_example_of_the_docstring():
    store = make_store([3, 2])
    documents = all_rows(plan_rows(store, 10, "documents"))
    assert documents.input_ids.tolist() == [[1, 10, 11, 12, 2, 1, 13, 14, 2, 0]]
    assert documents.segment_ids.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 2, 0]]
    assert documents.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0]]
    assert documents.word_starts.tolist() == [[i in (1, 2, 3, 6, 7) for i in range(10)]]
    assert documents.maskable.tolist() == [[i in (1, 2, 3, 6, 7) for i in range(10)]]
    stream = all_rows(plan_rows(store, 10, "stream"))
    assert stream.input_ids.tolist() == [[1, 10, 11, 12, 2, 13, 14, 2, 0, 0]]
    assert stream.segment_ids.tolist() == [[1] * 8 + [0, 0]]
    assert stream.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 0, 0]]


@pytest.mark.parametrize("texts", [1, 200])  # the loop over one text, and over many at once
def test_long_texts_are_cut_before_words(texts):
    one = np.arange(1000) % 3 == 0
    store = make_store([1000] * texts, np.tile(one, texts))
    plan = plan_rows(store, 64, "documents")
    assert store.word_starts[plan.starts].all()
    assert (plan.lengths > 64 - 2 - 3).sum() >= 15 * texts  # full but for a part of a word


@pytest.mark.parametrize("texts", [1, 200])
def test_a_word_longer_than_the_slack_is_cut_to_full_rows(texts):
    store = make_store([1000] * texts, np.tile(np.arange(1000) == 0, texts))
    plan = plan_rows(store, 64, "documents")
    assert sorted(plan.lengths)[: texts + 1] == [8] * texts + [62]


@pytest.mark.parametrize("texts", [1, 200])
def test_no_token_is_left_without_context(texts):
    plan = plan_rows(make_store([62 + 1] * texts), 64, "documents")
    assert plan.lengths.min() == 8 and plan.tokens == 63 * texts


def test_both_ways_of_cutting_agree():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, 300)
    words = rng.random(lengths.sum()) < 0.4
    store = make_store(lengths, words)
    together = plan_rows(store, 48, "documents")
    alone = [plan_rows(store, 48, "documents", texts=np.array([i])) for i in range(300)]
    pieces = sorted((s, n) for plan in alone for s, n in zip(plan.starts, plan.lengths, strict=True))
    assert sorted(zip(together.starts, together.lengths, strict=True)) == pieces


@pytest.mark.parametrize(("median", "seq_len"), [(20, 128), (90, 128), (150, 512), (700, 512)])
def test_natural_lengths_fill_the_rows(median, seq_len):
    lengths = np.maximum(1, np.random.default_rng(1).lognormal(np.log(median), 0.8, 4000)).astype(int)
    plan = plan_rows(make_store(lengths), seq_len, "documents")
    assert plan.fill > 0.98
    widths = (plan.lengths + 2).astype(np.int64)
    assert plan.rows <= widths.sum() / seq_len * 1.02 + 1


def test_rows_are_the_fewest_where_halves_fit_exactly():
    plan = plan_rows(make_store([30] * 10 + [62] * 3), 64, "documents")
    assert plan.rows == 3 + 5 and plan.fill == 1.0


def test_seed_changes_the_company_and_nothing_else():
    store = make_store([9, 10, 11] * 200)
    first, again, other = (plan_rows(store, 32, "documents", seed) for seed in (1, 1, 2))
    assert (first.starts == again.starts).all() and (first.row_ptr == again.row_ptr).all()
    assert (first.starts != other.starts).any() and first.rows == other.rows


def test_only_the_texts_asked_for():
    store = make_store([4, 5, 6, 70])
    for packing in ("documents", "stream"):
        rows = all_rows(plan_rows(store, 16, packing, texts=np.array([1, 3])))
        wanted = np.r_[store.tokens[4:9], store.tokens[15:]]
        assert sorted(rows.input_ids[rows.maskable]) == wanted.tolist()


def test_special_tokens_spelled_out_in_a_text_are_not_maskable():
    store = make_store([6])
    store.tokens[1], store.tokens[3], store.tokens[4] = SPECIAL.mask, SPECIAL.sep, SPECIAL.pad
    rows = all_rows(plan_rows(store, 10, "documents"))
    assert rows.maskable.tolist() == [[False, True, False, True, False, False, True, False, False, False]]
    assert (rows.segment_ids[0, :8] == 1).all()


def test_rows_in_any_order_and_more_than_once():
    store = make_store([5, 3, 60, 2, 8])
    for packing in ("documents", "stream"):
        plan = plan_rows(store, 16, packing)
        every = all_rows(plan)
        ids = np.array([2, 0, 0, 1])
        for some, whole in zip(plan.gather(ids, SPECIAL), every, strict=True):
            assert some.dtype == whole.dtype and (some == whole[ids]).all()
        assert plan.gather(np.array([], int), SPECIAL).input_ids.shape == (0, 16)


def test_types_and_emptiness():
    rows = all_rows(plan_rows(make_store([5]), 8, "documents"))
    assert [a.dtype for a in rows] == [np.int32, np.int32, np.int32, bool, bool]
    for packing in ("documents", "stream"):
        nothing = plan_rows(make_store([]), 8, packing)
        assert (nothing.rows, nothing.tokens, nothing.real_tokens, nothing.max_segments) == (0, 0, 0, 0)
        assert plan_rows(make_store([0, 3, 0]), 8, packing).tokens == 3


def test_mistakes():
    with pytest.raises(UserError, match="data.seq_len=3"):
        plan_rows(make_store([5]), 3, "documents")
    with pytest.raises(ValueError, match="packing"):
        plan_rows(make_store([5]), 8, "lines")


def test_unknown_tokens_and_spelled_out_special_ones_are_never_to_be_guessed():
    store = make_store([5])
    store.tokens[1], store.tokens[3] = 7, SPECIAL.mask
    rows = plan_rows(store, 8, "documents").gather(np.array([0]), SPECIAL._replace(unk=7))
    assert rows.maskable[0].tolist() == [False, True, False, True, False, True, False, False]
