"""Counter-based random numbers: pure, well mixed, and permutations that are permutations."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.data import rng


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(-(2**63), 2**64 - 1))
def test_permute_is_a_bijection(size, seed):
    keys = np.full(size, rng.key(seed), np.uint64)
    assert sorted(rng.permute(np.arange(size), size, keys)) == list(range(size))


def test_permute_of_a_part_is_that_part():
    keys = np.full(1000, rng.key(5), np.uint64)
    whole = rng.permute(np.arange(1000), 1000, keys)
    some = np.array([7, 999, 7, 0])
    assert (rng.permute(some, 1000, keys[some]) == whole[some]).all()


def test_permute_sends_every_row_everywhere():
    for size in (2, 3, 5, 12, 64):  # the smallest networks are the weakest
        epochs = 4000
        keys = np.repeat(rng.fold(rng.key(0), np.arange(epochs)), size)
        places = rng.permute(np.tile(np.arange(size), epochs), size, keys).reshape(epochs, size)
        expected = epochs / size
        for row in range(size):
            counts = np.bincount(places[:, row], minlength=size)
            assert np.abs(counts - expected).max() < 6 * expected**0.5


def test_neighbours_do_not_stay_neighbours():
    size = 5000
    order = rng.permute(np.arange(size), size, np.full(size, rng.key(1), np.uint64))
    assert (np.abs(np.diff(order)) == 1).sum() < 20  # two are expected
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.06


def test_a_billion_rows_need_no_memory():
    size = 10**9
    where = rng.permute(np.array([0, 1, size - 1]), size, np.full(3, rng.key(1), np.uint64))
    assert ((where >= 0) & (where < size)).all() and len(set(where)) == 3


def test_keys_differ_by_every_coordinate_and_by_order():
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**63,)]
    assert len({rng.key(*k) for k in keys}) == len(keys)


def test_bits_are_uniform():
    bits = rng.fold(rng.fold(rng.key(3), np.arange(300))[:, None], np.arange(300))
    assert bits.shape == (300, 300) and bits.dtype == np.uint64 and len(np.unique(bits)) == bits.size
    for bit in range(64):
        share = ((bits >> np.uint64(bit)) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / 300
    numbers = rng.uniform(bits)
    assert numbers.min() >= 0 and numbers.max() < 1 and abs(numbers.mean() - 0.5) < 0.005
    assert np.ptp(np.bincount(rng.below(bits, 9).ravel(), minlength=9)) < 0.08 * bits.size / 9
    assert np.unique(rng.below(bits, 1)).tolist() == [0]


def test_the_numbers_stay_what_they_are():
    """Orders and masks of runs on disk follow from these: change only with the checkpoints' format."""
    assert rng.key(1, 2, 3) == 8707484766495707579
    assert rng.fold(rng.key(0), np.arange(2)).tolist() == [6791897765849424158, 17405687883870564846]
    assert rng.permute(np.arange(10), 10, np.full(10, 42, np.uint64)).tolist() == [
        4,
        8,
        9,
        1,
        6,
        7,
        0,
        3,
        2,
        5,
    ]
