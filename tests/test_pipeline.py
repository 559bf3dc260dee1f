"""Batches are pure functions of the step, whole or in parts."""

import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.mlm.batches import FixedMaskBatches, MlmBatches
from jaxplm.data.mlm.mask import Masking
from jaxplm.data.mlm.pack import plan_rows
from jaxplm.data.mlm.rows import SpecialIds
from jaxplm.data.mlm.schedule import MaskRate
from jaxplm.data.order import RowOrder
from jaxplm.data.prefetch import prefetch
from jaxplm.errors import UserError

SPECIAL = SpecialIds(cls=1, sep=2, pad=0, mask=3)
RANDOM_IDS = np.arange(5, 10, dtype=np.int32)


class Store(NamedTuple):
    tokens: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray


def make_store(lengths) -> Store:
    """Texts whose tokens count up from 10, so that each can be told apart."""
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(10, 10 + offsets[-1], dtype=np.uint16)
    return Store(tokens, tokens % 3 != 0, offsets)


STORE = make_store(np.random.default_rng(0).integers(1, 50, 300))
PLAN = plan_rows(STORE, 32, "documents")


def masking(rate: float | MaskRate = 0.15, whole_word: bool = False, prefer_from: int | None = None) -> Masking:
    return Masking(rate if isinstance(rate, MaskRate) else MaskRate.constant(rate), whole_word, SPECIAL, RANDOM_IDS, prefer_from)


def train(whole_word=False, **options):
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 3} | options
    return MlmBatches(PLAN, masking(whole_word=whole_word), **arguments)


def fixed(whole_word=False, **options):
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 5} | options
    return FixedMaskBatches(PLAN, masking(whole_word=whole_word), **arguments)


def same(a, b) -> bool:
    return all(
        x.dtype == y.dtype and x.shape == y.shape and (x == y).all() for x, y in zip(a, b, strict=True)
    )


def real_rows(batches) -> dict[bytes, bytes]:
    """Unmasked row -> everything about it, for the rows that are not empty."""
    rows = {}
    for batch in batches:
        for row in zip(*batch, strict=True):
            if row[1].any():
                original = row[0].copy()
                used = row[5] > 0
                original[row[3][used]] = row[4][used]
                rows[original.tobytes()] = b"".join(part.tobytes() for part in row)
    return rows


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_every_row_once_per_epoch(seed, rows, batch_size, epoch):
    order = RowOrder(seed, rows)
    in_batches = [order(np.arange(i, i + batch_size)) for i in range(0, (epoch + 1) * rows, batch_size)]
    samples = np.concatenate(in_batches)
    assert sorted(samples[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_and_seeds_have_different_orders():
    orders = [RowOrder(seed, 50)(np.arange(50) + 50 * epoch).tobytes() for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@settings(deadline=None)
@given(st.integers(0, 2**40), st.permutations(range(8)), st.integers(1, 7), st.booleans())
def test_the_parts_of_processes_make_the_whole(step, rows, cut, whole_word):
    whole = train(whole_word).batch(step)
    for mine in (np.array(rows[:cut]), np.array(rows[cut:])):
        part = train(whole_word, local_rows=mine).batch(step)
        assert same(part, (a[mine] for a in whole))


def test_a_batch_depends_on_its_number_only():
    forward = train()
    assert same([forward.batch(i) for i in range(9)][-1], train().batch(8))
    assert not same(forward.batch(1), forward.batch(2))
    assert not same(forward.batch(1), train(seed=4).batch(1))


def test_an_epoch_has_every_token_and_new_masks():
    batches = train()
    assert batches.rows == PLAN.rows and batches.real_tokens == PLAN.real_tokens
    assert batches.steps_per_epoch == PLAN.rows / 8
    one_row = train(batch_size=1)
    first, second = (
        real_rows(one_row.batch(epoch * PLAN.rows + i) for i in range(PLAN.rows)) for epoch in (0, 1)
    )
    assert len(first) == PLAN.rows and first.keys() == second.keys()
    assert sum(first[row] == second[row] for row in first) < 0.1 * PLAN.rows
    tokens = np.concatenate([np.frombuffer(row, np.int32) for row in first])
    assert sorted(tokens[tokens >= 10]) == STORE.tokens.tolist()


def test_batch_types_and_shapes():
    batch = train().batch(0)
    assert [(a.dtype.name, a.shape) for a in batch] == [
        ("int32", (8, 32)),
        ("int32", (8, 32)),
        ("int32", (8, 32)),
        ("int32", (8, 4)),
        ("int32", (8, 4)),
        ("float32", (8, 4)),
    ]
    for batch_a, batch_b in zip(train().batch(0), list(fixed())[-1], strict=True):
        assert batch_a.dtype == batch_b.dtype and batch_a.shape == batch_b.shape


@pytest.mark.parametrize("whole_word", [False, True])
def test_fixed_rows_do_not_depend_on_the_batch(whole_word):
    rows = real_rows(fixed(whole_word=whole_word))
    assert len(rows) == PLAN.rows
    for batch_size in (1, 7, 64, 1000):
        assert real_rows(fixed(whole_word=whole_word, batch_size=batch_size)) == rows
    assert real_rows(fixed(whole_word=whole_word, seed=6)) != rows
    again = fixed(whole_word=whole_word)
    assert real_rows(again) == real_rows(again) == rows


def test_fixed_sample():
    every, some = real_rows(fixed()), real_rows(fixed(max_rows=21))
    assert len(some) == 21 and some.items() <= every.items()
    assert real_rows(fixed(max_rows=20)).items() <= some.items()
    assert len(fixed(max_rows=21)) == 3 and fixed(max_rows=10**6).rows == PLAN.rows
    once = fixed(max_rows=21)
    assert all(same(a, b) for a, b in zip(once, fixed(max_rows=21), strict=True))


def test_the_last_fixed_batch_is_filled_with_padding():
    last = list(fixed(max_rows=11))[-1]
    assert (last.input_ids[3:] == SPECIAL.pad).all() and last.segment_ids[:3].any(axis=1).all()
    for part in last[1:]:
        assert (part[3:] == 0).all()


def test_fixed_parts_of_processes_make_the_whole():
    whole = list(fixed(max_rows=13))
    for mine in (np.arange(4), np.arange(4, 8), np.array([6, 1])):
        parts = list(fixed(max_rows=13, local_rows=mine))
        assert all(same(p, (a[mine] for a in w)) for p, w in zip(parts, whole, strict=True))
    # Every process makes the same number of batches, if only of empty rows.
    assert not list(fixed(max_rows=8 + 4, local_rows=np.arange(4, 8)))[-1].segment_ids.any()


def test_mistakes():
    nothing = plan_rows(make_store([]), 32, "documents")
    with refuses("training", "tokens"):
        MlmBatches(nothing, masking(), batch_size=8, seed=0)
    with refuses("evaluation", "tokens"):
        FixedMaskBatches(nothing, masking(), batch_size=8)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "prefetch"]


def test_prefetch_in_order_and_done():
    assert list(prefetch(lambda i: i * i, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert list(prefetch(lambda i: i, 5, 5)) == [] == threads()


def test_prefetch_works_ahead_so_far_and_no_farther():
    made = []
    batches = prefetch(lambda i: made.append(i) or i, 0, 100, depth=3)
    assert next(batches) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]
    batches.close()
    assert threads() == []


def test_prefetch_passes_on_an_exception_where_it_belongs():
    def make(i):
        if i == 2:
            raise UserError("no more")
        return i

    got = []
    with pytest.raises(UserError, match="no more"):
        for i in prefetch(make, 0, 10):
            got.append(i)
    assert got == [0, 1] and threads() == []


def test_prefetch_stops_when_the_loop_does():
    def loop():
        for i in prefetch(lambda i: i, 0, 10**9):
            if i == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    # The exception's traceback held the iterator; it is gone now.
    assert threads() == []
