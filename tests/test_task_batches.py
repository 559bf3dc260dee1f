"""Packed rows hold what unpacked units hold, each once; a step is a function of its number."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.task_batches import FixedBatches, FixedRows, ShuffledRows, TrainBatches, fixed_rows, task_batch
from jaxplm.data.labelled.unit_rows import PlacedRows

PAD = 7
L = 24
KINDS = ("classify", "multilabel", "regress", "tag", "qa")


class Units(NamedTuple):
    encoded: Encoded
    targets: Targets

    @property
    def lengths(self):
        return self.encoded.lengths

    def make(self, rows: PlacedRows):
        return task_batch(self.encoded, self.targets, PAD, rows)


def make_units(lengths, kind="classify", seed=0) -> Units:
    """Units of which every token can be told apart."""
    random = np.random.default_rng(seed)
    lengths = np.asarray(lengths, np.int64)
    n, total = len(lengths), int(lengths.sum())
    labels = {
        "classify": random.integers(0, 4, n).astype(np.int32),
        "multilabel": random.integers(0, 2, (n, 3)).astype(np.float32),
        "regress": random.normal(size=n).astype(np.float32),
        "tag": random.integers(0, 4, total).astype(np.int32),
        "qa": np.sort(random.integers(0, lengths[:, None], (n, 2)), 1).astype(np.int32),
    }[kind]
    weights = (random.random(total if kind == "tag" else n) < 0.8).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    encoded = Encoded(np.arange(100, 100 + total, dtype=np.int32), random.integers(0, 2, total).astype(np.int8), offsets, np.arange(n))
    return Units(encoded, Targets(labels, weights, per_token=kind == "tag", positions=kind == "qa"))


def train_batches(units: Units, batch_size, **options):
    return TrainBatches(ShuffledRows(units.lengths, batch_size, L, **options), units.make)


def fixed_batches(units: Units, rows, **options):
    return FixedBatches(FixedRows(units.lengths, rows, L, **options), units.make)


def check_rows(batch, segments, units, kind):
    """Every row of the batch against the units that it should hold."""
    encoded, targets = units
    assert batch.input_ids.dtype == batch.segment_ids.dtype == batch.position_ids.dtype == np.int32
    assert batch.token_types.dtype == batch.first.dtype == np.int32 and batch.weights.dtype == np.float32
    for r, row in enumerate(segments):
        used = row[row >= 0]
        assert (row[len(used):] == -1).all()
        at = 0
        for s, unit in enumerate(used):
            begin, end = encoded.offsets[unit], encoded.offsets[unit + 1]
            here = slice(at, at + end - begin)
            assert (batch.input_ids[r, here] == encoded.ids[begin:end]).all()
            assert (batch.token_types[r, here] == encoded.types[begin:end]).all()
            assert (batch.segment_ids[r, here] == s + 1).all()
            assert (batch.position_ids[r, here] == np.arange(end - begin)).all()
            assert batch.first[r, s] == at
            if kind == "tag":
                assert (batch.weights[r, here] == targets.weights[begin:end]).all()
                assert (batch.labels[r, here] == targets.values[begin:end]).all()
            else:
                assert batch.weights[r, s] == targets.weights[unit]
                assert (batch.labels[r, s] == targets.values[unit] + (at if kind == "qa" else 0)).all()
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
    rows = ShuffledRows(units.lengths, batch_size, L, seed=seed, row_multiple=multiple, max_units=max_units)
    batches = TrainBatches(rows, units.make)
    assert rows.rows_per_step % multiple == 0
    assert rows.max_segments <= max_units
    assert rows.real_tokens == sum(lengths)
    seen = []
    shapes = set()
    for step in range(int(2 * batches.steps_per_epoch) + 2):
        batch, segments = batches.batch(step), rows.units_of(step)
        assert segments.shape == (rows.rows_per_step, rows.max_segments)
        check_rows(batch, segments, units, kind)
        shapes.add(tuple(array.shape for array in batch))
        seen.append(segments)
    assert len(shapes) == 1
    every = np.concatenate(seen)
    for epoch in range(2):  # each unit once per epoch, though steps straddle the epochs
        one = every[epoch * rows.rows : (epoch + 1) * rows.rows]
        assert np.array_equal(np.sort(one[one >= 0]), np.arange(len(lengths)))


@settings(deadline=None, max_examples=40)
@given(lengths_st, st.sampled_from(KINDS), st.integers(1, 9))
def test_fixed_rows(lengths, kind, rows):
    units = make_units(lengths, kind)
    batches = fixed_batches(units, rows)
    found = []
    for index, batch in enumerate(batches):
        segments = batches.units_of(index)
        assert segments.shape == (rows, batches.rows.max_segments)
        check_rows(batch, segments, units, kind)
        found.append(segments[segments >= 0])
    assert len(found) == len(batches)
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(lengths)))


def test_several_sets_have_rows_of_one_shape():
    sets = {"a": make_units([3] * 40), "b": make_units([20, 4]), "c": make_units([L])}
    rows = fixed_rows({name: units.lengths for name, units in sets.items()}, 4, L)
    own = {name: FixedRows(units.lengths, 4, L) for name, units in sets.items()}
    assert {one.max_segments for one in rows.values()} == {max(one.max_segments for one in own.values())} == {8}
    for name, units in sets.items():
        assert len(rows[name]) == len(own[name])
        for index in range(len(own[name])):
            check_rows(units.make(rows[name].placed(index)), rows[name].units_of(index), units, "classify")
            assert np.array_equal(rows[name].units_of(index)[:, : own[name].max_segments], own[name].units_of(index))


def test_steps_are_functions_of_their_number():
    units = make_units(np.random.default_rng(0).integers(3, L, 300))
    first, again = (train_batches(units, 16, seed=1) for _ in range(2))
    forward = [first.batch(step) for step in range(40)]
    for step in (39, 3, 17, 3):  # resumed anywhere, in any order
        for a, b in zip(again.batch(step), forward[step], strict=True):
            assert np.array_equal(a, b)
    other = train_batches(units, 16, seed=2)
    assert not np.array_equal(other.batch(0).input_ids, forward[0].input_ids)


def test_epochs_have_new_neighbours():
    units = make_units(np.random.default_rng(0).integers(3, 9, 300))
    rows = ShuffledRows(units.lengths, 16, L, seed=1)
    every = np.concatenate([rows.units_of(step) for step in range(int(2 * rows.steps_per_epoch) + 2)])
    first, second = ({frozenset(row[row >= 0].tolist()) for row in every[epoch * rows.rows : (epoch + 1) * rows.rows]}
                     for epoch in range(2))
    assert len(first & second) < 0.1 * len(first)


def test_processes_make_their_rows_alone():
    units = make_units(np.random.default_rng(0).integers(3, L, 100), "tag")
    whole = train_batches(units, 12, seed=0, row_multiple=4)
    fixed = fixed_batches(units, 8)

    def part(i):
        return lambda rows: np.arange(rows)[i::4]

    for i in range(4):
        mine = train_batches(units, 12, seed=0, row_multiple=4, local_rows=part(i))
        mine_fixed = fixed_batches(units, 8, local_rows=part(i))
        for all_rows, few in ((whole, mine), (fixed, mine_fixed)):
            for step in (0, 5, len(fixed) - 1):
                for a, b in zip(all_rows.batch(step), few.batch(step), strict=True):
                    assert np.array_equal(a[i::4], b)
                assert np.array_equal(all_rows.rows.units_of(step), few.rows.units_of(step))


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 16, 32, 100])
@pytest.mark.parametrize("longest", [6, 14, 24])
def test_a_step_holds_about_batch_size_units(batch_size, multiple, longest):
    """A step of 16 full rows of 16 texts each would be another recipe than one of 32 texts."""
    units = make_units(np.random.default_rng(1).integers(3, longest + 1, 2000))
    rows = ShuffledRows(units.lengths, batch_size, L, seed=0, row_multiple=multiple)
    assert 0.8 * batch_size <= rows.units_per_step <= 1.1 * batch_size
    mean = np.mean([(rows.units_of(step) >= 0).sum() for step in range(100)])
    assert abs(mean - rows.units_per_step) < 0.1 * rows.units_per_step


def test_short_texts_do_not_pay_for_padding():
    lengths = np.random.default_rng(1).integers(3, 12, 5000)
    fixed = FixedRows(lengths, 8, L)
    assert ShuffledRows(lengths, 32, L, seed=0).fill > 0.95 and fixed.real_tokens / (fixed.rows * L) > 0.95


def test_what_cannot_be_packed():
    with refuses("text"):
        ShuffledRows(np.zeros(0, np.int64), 8, L, seed=0)
    with refuses("text"):
        fixed_rows({"train": np.array([3]), "test": np.zeros(0, np.int64)}, 8, L)
    with refuses("fit", error=ValueError):
        FixedRows(np.array([L + 1]), 8, L)
