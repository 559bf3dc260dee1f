"""Packed rows hold what unpacked units hold, each once; a step is a function of its number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.labelled.task_batches import FixedTaskBatches, TaskBatches
from jaxplm.data.labelled.units import Units

PAD = 7
L = 24
KINDS = ("classify", "multilabel", "regress", "tag", "qa")


def make_units(lengths, kind="classify", seed=0) -> Units:
    """Units of which every token can be told apart."""
    random = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int64)
    n, total = len(lengths), int(lengths.sum())
    labels = {
        "classify": random.integers(-2, 4, n).astype(np.int32),
        "multilabel": random.integers(0, 2, (n, 3)).astype(np.float32),
        "regress": random.normal(size=n).astype(np.float32),
        "tag": random.integers(-2, 4, total).astype(np.int32),
        "qa": np.sort(random.integers(0, lengths[:, None], (n, 2)), 1).astype(np.int32),
    }[kind]
    weights = (labels >= 0 if kind in ("classify", "tag") else random.random(n) < 0.8).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Units(kind, np.arange(100, 100 + total, dtype=np.int32), random.integers(0, 2, total).astype(np.int8), offsets,
                 np.arange(n), labels, weights, n)


def check_rows(batch, slots, units, kind):
    """Every row of the batch against the units that it should hold."""
    assert batch.input_ids.dtype == batch.segment_ids.dtype == batch.position_ids.dtype == np.int32
    assert batch.token_types.dtype == batch.first.dtype == np.int32 and batch.weights.dtype == np.float32
    for r, row in enumerate(slots):
        used = row[row >= 0]
        assert (row[len(used):] == -1).all()
        at = 0
        for s, unit in enumerate(used):
            begin, end = units.offsets[unit], units.offsets[unit + 1]
            here = slice(at, at + end - begin)
            assert (batch.input_ids[r, here] == units.ids[begin:end]).all()
            assert (batch.token_types[r, here] == units.token_types[begin:end]).all()
            assert (batch.segment_ids[r, here] == s + 1).all()
            assert (batch.position_ids[r, here] == np.arange(end - begin)).all()
            assert batch.first[r, s] == at
            if kind == "tag":
                assert (batch.weights[r, here] == units.weights[begin:end]).all()
                assert (batch.labels[r, here] == np.maximum(units.labels[begin:end], 0)).all()
            else:
                assert batch.weights[r, s] == units.weights[unit]
                expected = {"classify": np.maximum(units.labels[unit], 0), "qa": units.labels[unit] + at}.get(kind, units.labels[unit])
                assert (batch.labels[r, s] == expected).all()
            at = here.stop
        assert (batch.input_ids[r, at:] == PAD).all()
        for array in (batch.segment_ids, batch.position_ids, batch.token_types):
            assert not array[r, at:].any()
        assert not batch.first[r, len(used):].any()
        assert not (batch.weights[r, at:] if kind == "tag" else batch.weights[r, len(used):]).any()


lengths_st = st.lists(st.integers(2, L) | st.integers(2, 5), min_size=1, max_size=80)


@settings(deadline=None, max_examples=60)
@given(lengths_st, st.sampled_from(KINDS), st.integers(1, 20), st.sampled_from([1, 2, 3]), st.integers(0, 3), st.integers(1, 12))
def test_training_rows(lengths, kind, batch_size, multiple, seed, max_units):
    units = make_units(lengths, kind)
    batches = TaskBatches(units, batch_size, L, pad_id=PAD, seed=seed, row_multiple=multiple, max_units=max_units)
    assert batches.rows_per_step % multiple == 0
    assert batches.slots <= max_units
    assert batches.real_tokens == sum(lengths)
    seen = []
    shapes = set()
    for step in range(int(2 * batches.steps_per_epoch) + 2):
        batch, slots = batches.batch(step), batches.units_of(step)
        assert slots.shape == (batches.rows_per_step, batches.slots)
        check_rows(batch, slots, units, kind)
        shapes.add(tuple(array.shape for array in batch))
        seen.append(slots)
    assert len(shapes) == 1
    rows = np.concatenate(seen)
    for epoch in range(2):  # each unit once an epoch, though steps straddle the epochs
        one = rows[epoch * batches.rows : (epoch + 1) * batches.rows]
        assert np.array_equal(np.sort(one[one >= 0]), np.arange(len(units)))


@settings(deadline=None, max_examples=40)
@given(lengths_st, st.sampled_from(KINDS), st.integers(1, 9))
def test_fixed_rows(lengths, kind, rows):
    units = make_units(lengths, kind)
    batches = FixedTaskBatches(units, rows, L, pad_id=PAD)
    found = []
    for index, batch in enumerate(batches):
        slots = batches.units_of(index)
        assert slots.shape == (rows, batches.slots)
        check_rows(batch, slots, units, kind)
        found.append(slots[slots >= 0])
    assert len(found) == len(batches)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(units)))


def test_steps_are_functions_of_their_number():
    units = make_units(np.random.default_rng(0).integers(3, L, 300))
    first, again = (TaskBatches(units, 16, L, pad_id=PAD, seed=1) for _ in range(2))
    forward = [first.batch(step) for step in range(40)]
    for step in (39, 3, 17, 3):  # resumed anywhere, in any order
        for a, b in zip(again.batch(step), forward[step], strict=True):
            assert np.array_equal(a, b)
    other = TaskBatches(units, 16, L, pad_id=PAD, seed=2)
    assert not np.array_equal(other.batch(0).input_ids, forward[0].input_ids)


def test_epochs_have_new_neighbours():
    units = make_units(np.random.default_rng(0).integers(3, 9, 300))
    batches = TaskBatches(units, 16, L, pad_id=PAD, seed=1)
    rows = np.concatenate([batches.units_of(step) for step in range(int(2 * batches.steps_per_epoch) + 2)])
    first, second = ({frozenset(row[row >= 0].tolist()) for row in rows[epoch * batches.rows : (epoch + 1) * batches.rows]}
                     for epoch in range(2))
    assert len(first & second) < 0.1 * len(first)


def test_processes_make_their_rows_alone():
    units = make_units(np.random.default_rng(0).integers(3, L, 100), "tag")
    whole = TaskBatches(units, 12, L, pad_id=PAD, seed=0, row_multiple=4)
    fixed = FixedTaskBatches(units, 8, L, pad_id=PAD)

    def part(i):
        return lambda rows: np.arange(rows)[i::4]

    for i in range(4):
        mine = TaskBatches(units, 12, L, pad_id=PAD, seed=0, row_multiple=4, slots=part(i))
        mine_fixed = FixedTaskBatches(units, 8, L, pad_id=PAD, slots=part(i))
        for all_rows, few in ((whole, mine), (fixed, mine_fixed)):
            for step in (0, 5, len(fixed) - 1):
                for a, b in zip(all_rows.batch(step), few.batch(step), strict=True):
                    assert np.array_equal(a[i::4], b)
                assert np.array_equal(all_rows.units_of(step), few.units_of(step))


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 16, 32, 100])
@pytest.mark.parametrize("longest", [6, 14, 24])
def test_a_step_holds_about_batch_size_units(batch_size, multiple, longest):
    """A step of 16 full rows of 16 texts each would be another recipe than one of 32 texts."""
    units = make_units(np.random.default_rng(1).integers(3, longest + 1, 2000))
    batches = TaskBatches(units, batch_size, L, pad_id=PAD, seed=0, row_multiple=multiple)
    assert 0.8 * batch_size <= batches.units_per_step <= 1.1 * batch_size
    mean = np.mean([(batches.units_of(step) >= 0).sum() for step in range(100)])
    assert abs(mean - batches.units_per_step) < 0.1 * batches.units_per_step


def test_short_texts_do_not_pay_for_padding():
    units = make_units(np.random.default_rng(1).integers(3, 12, 5000))
    batches = TaskBatches(units, 32, L, pad_id=PAD, seed=0)
    assert batches.fill > 0.95 and FixedTaskBatches(units, 8, L, pad_id=PAD).fill > 0.95


def test_what_cannot_be_packed():
    with refuses("text"):
        TaskBatches(make_units([]), 8, L, pad_id=PAD, seed=0)
    with refuses("fit", error=ValueError):
        FixedTaskBatches(make_units([L + 1]), 8, L, pad_id=PAD)
