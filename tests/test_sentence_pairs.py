"""Pairs of segments: what a row is made of, how often B belongs to A, and that it is a function of (seed, step)."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from test_pipeline import SPECIAL, Store, masking

from jaxplm.data.batch import PairBatch
from jaxplm.data.mlm.batches import FixedMaskBatches, MlmBatches
from jaxplm.data.mlm.rows import PairRows
from jaxplm.data.mlm.sentence_pairs import plan_pairs, sentence_ends
from jaxplm.data.rng import RowDraws

STOP = 9  # the token that ends sentences
ENDS = np.arange(60_000) == STOP


def make_store(lengths, seed: int = 0, stops: float = 0.1) -> Store:
    """Texts whose tokens count up from 10, so that each can be told apart; but a tenth of them are full stops."""
    random = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(10, 10 + offsets[-1], dtype=np.uint16)
    tokens[random.random(len(tokens)) < stops] = STOP
    word_starts = random.random(len(tokens)) < 0.6
    word_starts[offsets[:-1]] = True
    word_starts[1:] |= (tokens[1:] == STOP) | (tokens[:-1] == STOP)
    return Store(tokens, word_starts, offsets)


STORE = make_store(np.random.default_rng(0).integers(2, 150, 120))


def train(kind: str, store=STORE, seq_len=32, whole_word=False, **options) -> MlmBatches:
    settings: dict[str, Any] = {"batch_size": 16, "seed": 3} | options
    return MlmBatches(plan_pairs(store, seq_len, kind, ENDS), masking(whole_word=whole_word), **settings)


def fixed(kind: str, **options) -> FixedMaskBatches:
    settings: dict[str, Any] = {"batch_size": 16, "seed": 5} | options
    return FixedMaskBatches(plan_pairs(STORE, 32, kind, ENDS), masking(), **settings)


def rows_of(batches: MlmBatches, step: int) -> PairRows:
    """The rows of a step before masking."""
    rows = batches.plan.gather(batches.rows_of_step(step), SPECIAL, batches.draws_of_step(step))
    assert isinstance(rows, PairRows)
    return rows


def text_of(store: Store, token: int) -> int:
    """Which text a token that is no full stop belongs to."""
    return int(np.searchsorted(store.offsets, token - 10, side="right") - 1)


def original(batch: PairBatch) -> np.ndarray:
    """[B, L] the tokens before masking."""
    ids = batch.input_ids.copy()
    rows, nth = np.nonzero(batch.mlm_weights)
    ids[rows, batch.mlm_positions[rows, nth]] = batch.mlm_labels[rows, nth]
    return ids


def segments_of(batch: PairBatch, row: int) -> tuple[list[int], list[int]]:
    """The tokens of A and of B; checks the frame around them."""
    ids, types = original(batch)[row].tolist(), batch.token_types[row].tolist()
    real = int(batch.segment_ids[row].sum())
    assert batch.segment_ids[row].tolist() == [1] * real + [0] * (len(ids) - real)
    assert batch.position_ids[row].tolist() == [*range(real), *[0] * (len(ids) - real)]
    assert ids[real:] == [SPECIAL.pad] * (len(ids) - real)
    seps = [i for i, token in enumerate(ids) if token == SPECIAL.sep]
    assert ids[0] == SPECIAL.cls and len(seps) == 2 and seps[1] == real - 1
    assert types == [0] * (seps[0] + 1) + [1] * (real - seps[0] - 1) + [0] * (len(ids) - real)
    a, b = ids[1 : seps[0]], ids[seps[0] + 1 : seps[1]]
    assert a and b and min(a + b) >= STOP
    return a, b


def place_of(store: Store, segment: list[int]) -> int:
    """Where a segment starts in the store: full stops are alike, so the first other token tells."""
    ahead = next((i for i, token in enumerate(segment) if token != STOP), None)
    assert ahead is not None
    begin = segment[ahead] - 10 - ahead
    assert store.tokens[begin : begin + len(segment)].tolist() == segment, "consecutive text"
    return begin


def told(segment: list[int]) -> bool:
    return any(token != STOP for token in segment)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["nsp", "sop"]), st.integers(0, 2**30), st.integers(8, 70), st.integers(0, 5))
def test_a_row_is_a_pair_of_consecutive_stretches(kind, step, seq_len, store_seed):
    store = make_store(np.random.default_rng(store_seed).integers(1, 100, 40), store_seed)
    batch = train(kind, store, seq_len).batch(step)
    assert isinstance(batch, PairBatch)
    assert batch.input_ids.shape == (16, seq_len)
    for row in range(16):
        a, b = segments_of(batch, row)
        assert batch.pair_weights[row] == 1
        if not (told(a) and told(b)):
            continue
        at_a, at_b = place_of(store, a), place_of(store, b)
        text_a, text_b = (np.searchsorted(store.offsets, at, side="right") - 1 for at in (at_a, at_b))
        if batch.pair_labels[row] == 0:
            assert at_b == at_a + len(a) and text_a == text_b
        elif kind == "sop":
            assert at_a == at_b + len(b) and text_a == text_b
        else:
            assert text_a != text_b


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_half_and_half(kind):
    of = train(kind, batch_size=64)
    labels = np.concatenate([of.batch(i).pair_labels for i in range(60)])
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / len(labels) ** 0.5
    assert labels.dtype == np.int32


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_the_length_of_a_row_does_not_tell_the_label(kind):
    """A model could read it off the padding."""
    for lengths in ((200, 400), (20, 50), (20, 200)):
        store = make_store(np.random.default_rng(1).integers(*lengths, 100))
        of = train(kind, store, 64, batch_size=64)
        found = [(b.segment_ids.sum(axis=1), b.token_types.sum(axis=1), b.pair_labels) for b in map(of.batch, range(60))]
        width, second, label = (np.concatenate(part) for part in zip(*found, strict=True))
        # A stretch begins with the sentence that had no room in the one before: its first part is longer by a little.
        for number, most in ((width, 1.5), (second, 3.0)):
            assert abs(number[label == 0].mean() - number[label == 1].mean()) < most, lengths
        assert abs((width >= 60)[label == 0].mean() - (width >= 60)[label == 1].mean()) < 0.06, lengths


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_where_sentences_end_does_not_tell_the_label(kind):
    """Of two exchanged parts the first must not end within a sentence, nor the second begin or end in another way."""
    store = make_store(np.random.default_rng(1).integers(100, 400, 100), stops=0.15)
    of = train(kind, store, 64, batch_size=64)
    found = []
    for number in range(40):
        rows, batch = rows_of(of, number).input_ids, of.batch(number)
        row, real, first_b = np.arange(64), batch.segment_ids.sum(axis=1), batch.token_types.argmax(axis=1)
        found.append((batch.pair_labels, rows[row, first_b - 2] == STOP, rows[row, real - 2] == STOP))
    label, a, b = (np.concatenate(part) for part in zip(*found, strict=True))
    assert a.mean() > 0.85 and b.mean() > 0.75  # a text's own last sentence need not have a stop
    for ends in (a, b):
        assert abs(ends[label == 0].mean() - ends[label == 1].mean()) < 0.15


def test_a_replaced_segment_begins_and_ends_like_others():
    """Its first token begins a sentence where there are some, its last one ends a stretch."""
    store = make_store(np.random.default_rng(1).integers(100, 400, 60), stops=0.15)
    of = train("nsp", store, 64, batch_size=64)
    plan = plan_pairs(store, 64, "nsp", ENDS)
    ends = set((plan.starts + plan.lengths).tolist())
    begun, ended, words, total = 0, 0, 0, 0
    for batch in map(of.batch, range(20)):
        for row in np.flatnonzero(batch.pair_labels):
            a, b = segments_of(batch, int(row))
            if told(a) and told(b):
                at_a, at_b = place_of(store, a), place_of(store, b)
                begun += store.tokens[at_b - 1] == STOP
                ended += at_b + len(b) in ends
                words += store.word_starts[at_a]
                total += 1
    assert total > 400
    assert ended == total
    assert begun > 0.9 * total and words > 0.98 * total


def test_a_tenth_is_shortened_and_the_rest_fills_the_row():
    store = make_store([2000] * 10, stops=0.0)
    of = train("sop", store, 64, batch_size=64)
    full = np.concatenate([of.batch(i).segment_ids.sum(axis=1) for i in range(40)])
    assert 0.05 < (full < 48).mean() < 0.12  # up to 7 tokens are left out for a word to be whole
    assert full.min() >= 5


@pytest.mark.slow
def test_every_stretch_once_an_epoch_and_cut_again():
    of = train("sop", batch_size=1)
    firsts = []
    for epoch in range(2):
        batches = [of.batch(epoch * of.rows + i) for i in range(of.rows)]
        begins = []
        for batch in batches:
            a, b = segments_of(batch, 0)
            both = b + a if batch.pair_labels[0] else a + b
            if told(both):
                begins.append(place_of(STORE, both))
        assert len(begins) == len(set(begins)) > 0.9 * of.rows
        firsts.append(sorted(begins))
    assert firsts[0] == firsts[1]
    assert of.steps_per_epoch == of.rows
    cuts = {tuple(sorted(len(segment) for segment in segments_of(of.batch(np.flatnonzero(order)[0] + epoch * of.rows), 0)))
            for epoch in range(8) for order in [of._order(np.arange(of.rows) + epoch * of.rows) == 7]}
    assert len(cuts) > 1


def test_cuts_fall_between_sentences_else_between_words():
    with_stops, without = make_store([90] * 30, stops=0.15), make_store([90] * 30, stops=0.0)
    for store, sentences in ((with_stops, True), (without, False)):
        plan = plan_pairs(store, 64, "sop", ENDS)
        rows = plan.gather(np.arange(plan.rows), SPECIAL, RowDraws((1, 2), np.arange(plan.rows)))
        good = 0
        for row in range(plan.rows):
            first_b = int(np.flatnonzero(rows.token_types[row])[0])
            # The second part of the text: B, or A where they are exchanged.
            second = rows.input_ids[row, 1 if rows.pair_labels[row] else first_b]
            before = rows.input_ids[row, (int(rows.segment_ids[row].sum()) if rows.pair_labels[row] else first_b) - 2]
            if second == STOP or rows.segment_ids[row].sum() < 25:
                continue
            assert store.word_starts[second - 10]
            good += before == STOP
        assert good > 0.7 * plan.rows if sentences else good == 0


@pytest.mark.parametrize(("kind", "whole_word"), [("nsp", False), ("sop", True)])
def test_both_segments_are_masked_at_the_exact_rate(kind, whole_word):
    of = train(kind, whole_word=whole_word, batch_size=64)
    batch, rows = of.batch(4), rows_of(of, 4)
    budget = np.rint(0.15 * rows.maskable.sum(axis=1))
    used = batch.mlm_weights.sum(axis=1)
    assert (used == budget).all() if not whole_word else ((used <= budget) & (used >= budget - 3)).all()
    assert (original(batch) == rows.input_ids).all()
    types = np.take_along_axis(batch.token_types, batch.mlm_positions, axis=1)[batch.mlm_weights > 0]
    assert 0.3 < types.mean() < 0.7
    assert not rows.maskable[:, 0].any() and not (rows.maskable & (rows.input_ids == SPECIAL.sep)).any()


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_a_batch_depends_on_its_number_only_and_parts_make_the_whole(kind):
    whole = train(kind).batch(11)
    assert all((a == b).all() for a, b in zip(whole, train(kind).batch(11), strict=True))
    assert not (whole.pair_labels == train(kind).batch(12).pair_labels).all()
    assert not (whole.input_ids == train(kind, seed=4).batch(11).input_ids).all()
    for mine in (np.array([3, 0, 9]), np.array([15])):
        part = train(kind, local_rows=mine).batch(11)
        assert all((a == b[mine]).all() and a.dtype == b.dtype for a, b in zip(part, whole, strict=True))


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_fixed_pairs_do_not_depend_on_the_batch(kind):
    def rows(batches) -> set[bytes]:
        return {b"".join(part.tobytes() for part in row) for batch in batches for row in zip(*batch, strict=True) if row[1].any()}

    one = rows(fixed(kind))
    assert len(one) == fixed(kind).rows
    assert rows(fixed(kind, batch_size=7)) == one == rows(fixed(kind))
    assert rows(fixed(kind, seed=6)) != one
    last = list(fixed(kind, batch_size=50))[-1]
    empty = ~last.segment_ids.any(axis=1)
    assert empty.any()
    assert not last.pair_weights[empty].any() and not last.mlm_weights[empty].any() and last.pair_weights[~empty].all()
    assert (last.input_ids[empty] == SPECIAL.pad).all()
    assert [a.dtype.name for a in last] == ["int32"] * 5 + ["float32", "int32", "int32", "float32"]


def test_next_sentences_of_two_texts_when_one_is_most_of_the_corpus():
    """No stretch of another text may be found in the tries; the label then says what the row is."""
    store = make_store([4000, 40])
    of = train("nsp", store, batch_size=64)
    batches = [of.batch(i) for i in range(20)]
    wrong = 0
    for batch in batches:
        for row in range(64):
            a, b = segments_of(batch, row)
            if told(a) and told(b):
                follows = place_of(store, b) == place_of(store, a) + len(a)
                assert follows == (batch.pair_labels[row] == 0)
                wrong += not follows
    assert wrong > 10


def test_texts_that_make_no_pairs():
    assert plan_pairs(make_store([1, 1, 5], stops=0), 32, "sop", ENDS).rows == 1
    with refuses("model.pairs=sop", "a.txt"):
        plan_pairs(make_store([1, 1]), 32, "sop", ENDS, source="a.txt")
    with refuses("model.pairs=nsp", "b.txt", "model.pairs=sop"):
        plan_pairs(make_store([1, 500]), 32, "nsp", ENDS, source="b.txt")
    with refuses("nsp", "sop", error=ValueError):
        plan_pairs(STORE, 32, "ns", ENDS)


def test_the_plan_counts():
    plan = plan_pairs(STORE, 32, "nsp", ENDS)
    assert plan.tokens == plan.lengths.sum() and plan.real_tokens == plan.tokens + 3 * plan.rows
    assert 0.5 < plan.fill <= 1 and plan.lengths.max() == 29
    assert plan.tokens >= STORE.offsets[-1] - 5
    some = plan_pairs(STORE, 32, "nsp", ENDS, texts=np.array([3, 5]))
    assert set(some.text.tolist()) == {3, 5}


def test_what_ends_a_sentence():
    ends = [".", "##.", "Ġ.", "▁?", "!", "。", "？", "...", "다.", "요!", '."', "Ġit.)"]
    others = ["##", "Ġ", "▁", "습니다", "[SEP]", ",", ".5", '"', "", "e.g"]
    assert sentence_ends(ends + others).tolist() == [True] * len(ends) + [False] * len(others)
