"""From a set to packed rows and back: every unit and every token returns to its place."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.data.labelled.task_batches import FixedRows, ShuffledRows
from jaxplm.data.labelled.unit_index import token_index
from jaxplm.data.labelled.unit_rows import PlacedRows, plan_units
from jaxplm.engine.predict import scatter_to_units

L = 20
lengths_st = st.lists(st.integers(2, L) | st.integers(2, 5), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64))


@settings(deadline=None, max_examples=60)
@given(lengths_st, st.integers(1, 9), st.integers(1, 8))
def test_the_index_says_what_the_rows_hold(lengths, rows, max_units):
    places = np.arange(lengths.sum(), dtype=np.int32)
    fixed = FixedRows(lengths, rows, L, plan=plan_units(lengths, L, max_units))
    shuffled = ShuffledRows(lengths, 7, L, seed=3, max_units=max_units)
    for some, count in ((fixed, len(fixed)), (shuffled, 5)):
        for i in range(count):
            assert np.array_equal(token_index(some.units_of(i), lengths, L), some.placed(i).of_tokens(places, fill=-1))


@settings(deadline=None, max_examples=60)
@given(lengths_st, st.integers(1, 9), st.booleans(), st.sampled_from([(), (3,), (2, 3)]))
def test_there_and_back(lengths, rows, by_token, shape):
    """Into rows and out of them by scatter_to_units(): nothing is lost, and what unused places hold does not matter."""
    fixed = FixedRows(lengths, rows, L)
    count = int(lengths.sum()) if by_token else len(lengths)
    values = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    back = np.full_like(values, np.nan)
    for i in range(len(fixed)):
        units, placed = fixed.units_of(i), fixed.placed(i)
        index = token_index(units, lengths, L) if by_token else units
        laid = placed.of_tokens(values) if by_token else placed.of_units(values)
        assert laid.shape == (*index.shape, *shape) and laid.dtype == values.dtype
        assert not laid[index < 0].any()
        laid[index < 0] = 99
        scatter_to_units(back, laid, units, lengths, by_token=by_token)
    assert np.array_equal(back, values)


def test_segments_that_are_unused_in_the_middle_and_rows_that_are_empty():
    lengths = np.array([3, 2, 4])
    index = token_index(np.array([[2, -1, 0], [-1, -1, -1], [1, -1, -1]]), lengths, 8)
    assert index.tolist() == [[5, 6, 7, 8, 0, 1, 2, -1], [-1] * 8, [3, 4, *[-1] * 6]]
    assert (token_index(np.full((2, 3), -1), lengths, 8) == -1).all()


def test_a_set_of_vectors_may_be_on_disk(tmp_path):
    file = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, (5, 2))
    file[:] = np.arange(10).reshape(5, 2)
    file.flush()
    rows = PlacedRows(np.array([0, 1, 3, 4, 4, 5]), np.array([1, 2]), np.array([4, 0, 2]), 3, 2)
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert rows.of_units(vectors).tolist() == [[[8, 9], [0, 0]], [[0, 1], [4, 5]]]
    assert rows.of_tokens(vectors).tolist() == [[[8, 9], [0, 0], [0, 0]], [[0, 1], [6, 7], [0, 0]]]
