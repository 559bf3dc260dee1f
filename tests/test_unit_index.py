"""From a set to packed rows and back: every unit and every token returns to its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.data.labelled.task_batches import FixedTaskBatches, TaskBatches
from jaxplm.data.labelled.unit_index import take, token_index
from jaxplm.data.labelled.units import Units
from jaxplm.engine.predict import scatter_to_units

L = 20
lengths_st = st.lists(st.integers(2, L) | st.integers(2, 5), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64))


def make_units(lengths: np.ndarray) -> Units:
    """Units whose token ids are the tokens' places in the set."""
    n, total = len(lengths), int(lengths.sum())
    return Units("classify", np.arange(total, dtype=np.int32), np.zeros(total, np.int8), np.concatenate([[0], np.cumsum(lengths)]),
                 np.arange(n), np.zeros(n, np.int32), np.ones(n, np.float32), n)


@settings(deadline=None, max_examples=60)
@given(lengths_st, st.integers(1, 9), st.integers(1, 8))
def test_the_index_says_what_the_rows_hold(lengths, rows, max_units):
    units = make_units(lengths)
    fixed = FixedTaskBatches(units, rows, L, pad_id=-1, max_units=max_units)
    trained = TaskBatches(units, 7, L, pad_id=-1, seed=3, max_units=max_units)
    for batches, count in ((fixed, len(fixed)), (trained, 5)):
        for i in range(count):
            assert np.array_equal(token_index(batches.units_of(i), lengths, L), batches.batch(i).input_ids)


@settings(deadline=None, max_examples=60)
@given(lengths_st, st.integers(1, 9), st.booleans(), st.sampled_from([(), (3,), (2, 3)]))
def test_there_and_back(lengths, rows, by_token, shape):
    """take() to rows and scatter_to_units() from them: nothing is lost, whatever stands in unused places."""
    batches = FixedTaskBatches(make_units(lengths), rows, L, pad_id=0)
    count = int(lengths.sum()) if by_token else len(lengths)
    values = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    back = np.full_like(values, np.nan)
    for i in range(len(batches)):
        units = batches.units_of(i)
        index = token_index(units, lengths, L) if by_token else units
        laid = take(values, index)
        assert laid.shape == (*index.shape, *shape) and laid.dtype == values.dtype
        assert not laid[index < 0].any()
        laid[index < 0] = 99
        scatter_to_units(back, laid, units, lengths, by_token=by_token)
    assert np.array_equal(back, values)


def test_slots_that_are_unused_in_the_middle_and_rows_that_are_empty():
    lengths = np.array([3, 2, 4])
    index = token_index(np.array([[2, -1, 0], [-1, -1, -1], [1, -1, -1]]), lengths, 8)
    assert index.tolist() == [[5, 6, 7, 8, 0, 1, 2, -1], [-1] * 8, [3, 4, *[-1] * 6]]
    assert (token_index(np.full((2, 3), -1), lengths, 8) == -1).all()


def test_a_set_of_vectors_may_lie_on_disk(tmp_path):
    file = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, (5, 2))
    file[:] = np.arange(10).reshape(5, 2)
    file.flush()
    found = take(np.load(tmp_path / "v.npy", mmap_mode="r"), np.array([[4, -1], [0, 2]]))
    assert found.tolist() == [[[8, 9], [0, 0]], [[0, 1], [4, 5]]]
    with pytest.raises(IndexError):
        take(np.zeros((2, 3)), np.array([2]))
