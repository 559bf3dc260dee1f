"""Masking is exact: how many, which, with what, and always the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.mlm.mask import Masking, capacity, mask_rows
from jaxplm.data.mlm.rows import Masked, Rows, SpecialIds
from jaxplm.data.mlm.schedule import MaskRate
from jaxplm.data.rng import RowDraws

MASK = 3
SPECIAL = SpecialIds(cls=1, sep=2, pad=0, mask=MASK)
RANDOM_IDS = np.arange(1000, 1500, dtype=np.int32)


def run(ids, maskable, words=None, *, rate=0.15, key=(0, 0), row_index=None, k=None, prefer_from=None) -> Masked:
    """Masks of rows that are texts from end to end; `words` None masks single tokens."""
    b, length = ids.shape
    rows = Rows(ids, np.ones_like(ids), np.zeros_like(ids), maskable if words is None else words, maskable)
    masking = Masking(MaskRate.constant(rate), words is not None, SPECIAL, RANDOM_IDS, prefer_from)
    draws = RowDraws(key, np.arange(b) if row_index is None else row_index)
    return mask_rows(rows, masking, rate, k or max(1, round(rate * length)), draws)


def example(seed, b, length, p_maskable=0.9, p_word=0.6):
    rng = np.random.default_rng(seed)
    ids = rng.integers(10, 900, (b, length)).astype(np.int32)
    return ids, rng.random((b, length)) < p_maskable, rng.random((b, length)) < p_word


def words_of(maskable, starts):
    """The words of one row, as lists of positions: the slow, obvious way."""
    words = []
    for i in range(len(maskable)):
        if maskable[i]:
            if starts[i] or i == 0 or not maskable[i - 1]:
                words.append([])
            words[-1].append(i)
    return words


def chosen_of(result, row):
    return result.positions[row, result.weights[row] > 0].tolist()


shapes = st.tuples(st.integers(0, 2**20), st.integers(1, 6), st.integers(1, 70))
rates = st.sampled_from([0.0, 0.15, 0.3, 0.4, 0.5, 1.0]) | st.floats(0.01, 0.99)


@settings(deadline=None)
@given(shapes, rates, st.floats(0, 1), st.booleans())
def test_what_holds_for_every_row(shape, rate, p_maskable, whole_word):
    ids, maskable, starts = example(*shape, p_maskable=p_maskable)
    result = run(ids, maskable, starts if whole_word else None, rate=rate)
    for row in range(len(ids)):
        chosen = chosen_of(result, row)
        budget = round(rate * int(maskable[row].sum()))
        assert len(chosen) <= budget if whole_word else len(chosen) == budget
        assert chosen == sorted(set(chosen)) and maskable[row, chosen].all()
        n = len(chosen)
        assert result.weights[row].tolist() == [1.0] * n + [0.0] * (result.weights.shape[1] - n)
        assert (result.positions[row, n:] == 0).all() and (result.labels[row, n:] == 0).all()
        assert (result.labels[row, :n] == ids[row, chosen]).all()
        kept = np.delete(np.arange(ids.shape[1]), chosen)
        assert (result.input_ids[row, kept] == ids[row, kept]).all()
        now, before = result.input_ids[row, chosen], ids[row, chosen]
        masked, replaced, same = now == MASK, np.isin(now, RANDOM_IDS), now == before
        assert (masked | replaced | same).all()
        for share, count in ((0.8, masked.sum()), (0.1, replaced.sum()), (0.1, same.sum())):
            assert abs(count - share * n) < 1 + 1e-9


@settings(deadline=None)
@given(shapes, rates, st.floats(0, 1), st.floats(0, 1))
def test_whole_words_and_none_more_fits(shape, rate, p_maskable, p_word):
    ids, maskable, starts = example(*shape, p_maskable=p_maskable, p_word=p_word)
    result = run(ids, maskable, starts, rate=rate)
    for row in range(len(ids)):
        chosen = set(chosen_of(result, row))
        left = round(rate * int(maskable[row].sum())) - len(chosen)
        for word in words_of(maskable[row], starts[row]):
            taken = chosen.intersection(word)
            assert taken in (set(), set(word))
            assert taken or len(word) > left


def test_words_of_one_token_fill_the_budget_exactly():
    ids, maskable, _ = example(0, 8, 64)
    result = run(ids, maskable, np.ones_like(maskable), rate=0.3)
    assert (result.weights.sum(axis=1) == np.rint(0.3 * maskable.sum(axis=1))).all()


def test_a_million_tokens():
    b, length, rate = 256, 512, 0.15
    counts = np.zeros(3, np.int64)
    per_position, per_id = np.zeros(length), np.zeros(len(RANDOM_IDS))
    kinds_per_position = np.zeros((3, length))
    for step in range(8):
        ids, _, _ = example(step, b, length)
        maskable = np.ones_like(ids, bool)
        maskable[:, [0, -1]] = False
        result = run(ids, maskable, key=(7, step), k=capacity(rate, length))
        assert (result.weights.sum(axis=1) == round(rate * 510)).all()
        now = np.take_along_axis(result.input_ids, result.positions, axis=1)
        kinds = np.where(now == MASK, 0, np.where(now >= 1000, 1, 2))
        counts += np.bincount(kinds.ravel(), minlength=3)
        np.add.at(per_position, result.positions.ravel(), 1)
        np.add.at(kinds_per_position, (kinds.ravel(), result.positions.ravel()), 1)
        np.add.at(per_id, now[kinds == 1] - 1000, 1)
    total = counts.sum()
    assert total == 8 * b * 76
    # Systematic sampling: every row is within one token, so the sum is far closer than chance would have it.
    np.testing.assert_allclose(counts / total, [0.8, 0.1, 0.1], atol=5e-4)
    inner = per_position[1:-1]
    assert np.abs(inner / inner.mean() - 1).max() < 5 * inner.mean() ** -0.5
    masked = kinds_per_position[0, 1:-1] / inner
    assert np.abs(masked - 0.8).max() < 5 * (0.8 * 0.2 / inner.mean()) ** 0.5
    assert np.abs(per_id / per_id.mean() - 1).max() < 5 * per_id.mean() ** -0.5


def test_even_a_single_token_is_masked_8_times_in_10():
    ids = np.full((20_000, 7), 50, np.int32)
    result = run(ids, np.ones_like(ids, bool), rate=1 / 7)
    now = np.take_along_axis(result.input_ids, result.positions, axis=1)
    shares = [(now == MASK).mean(), (now >= 1000).mean(), (now == 50).mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)
    np.testing.assert_allclose(np.bincount(result.positions.ravel()) / 20_000, 1 / 7, atol=0.01)


def test_a_part_of_the_rows_is_that_part_of_the_whole():
    ids, maskable, starts = example(1, 12, 50)
    for words in (None, starts):
        whole = run(ids, maskable, words)
        some = np.array([9, 2, 3])
        part = run(ids[some], maskable[some], None if words is None else words[some], row_index=some)
        for a, b in zip(part, whole, strict=True):
            assert a.dtype == b.dtype and (a == b[some]).all()


def test_every_step_seed_and_row_has_its_own_draw():
    ids = np.tile(example(2, 1, 200)[0], (4, 1))
    maskable = np.ones_like(ids, bool)
    keys = ((0, 0), (0, 1), (1, 0), (1, 1), (0,))
    draws = [run(ids, maskable, key=key).positions.tobytes() for key in keys]
    assert len(set(draws)) == len(draws)
    assert len({p.tobytes() for p in run(ids, maskable).positions}) == 4
    assert run(ids, maskable).input_ids.tobytes() == run(ids, maskable).input_ids.tobytes()


def test_the_input_is_left_alone():
    ids, maskable, starts = example(3, 4, 30)
    before = ids.copy(), maskable.copy(), starts.copy()
    run(ids, maskable, starts)
    assert all((a == b).all() for a, b in zip(before, (ids, maskable, starts), strict=True))


def test_types_and_shapes():
    ids, maskable, starts = example(4, 5, 40)
    for words in (None, starts):
        result = run(ids, maskable, words, k=9)
        assert [a.dtype for a in result] == [np.int32, np.int32, np.int32, np.float32]
        assert [a.shape for a in result] == [(5, 40), (5, 9), (5, 9), (5, 9)]


def test_capacity():
    assert [capacity(0.15, 128), capacity(0.15, 512), capacity(0.3, 128)] == [19, 76, 38]
    assert capacity(0.01, 8) == 1
    with refuses("3", error=ValueError):
        run(np.ones((2, 40), np.int32), np.ones((2, 40), bool), k=3)


def test_the_numbers_stay_what_they_are():
    """A run resumed by a newer version must draw the same masks: change only with the checkpoints' format."""
    ids = np.arange(100, 140, dtype=np.int32).reshape(2, 20)
    words = np.tile(np.arange(20) % 2 == 0, (2, 1))
    single = run(ids, np.ones_like(ids, bool), rate=0.2, key=(1, 2))
    whole = run(ids, np.ones_like(ids, bool), words, rate=0.2, key=(1, 2))
    assert single.positions.tolist() == [[3, 7, 12, 13], [0, 4, 12, 15]]
    assert np.take_along_axis(single.input_ids, single.positions, axis=1).tolist() == [
        [1285, 3, 3, 3],
        [3, 124, 3, 3],
    ]
    assert whole.positions.tolist() == [[12, 13, 18, 19], [0, 1, 12, 13]]


NEW_FROM = 800  # `example` draws ids from 10 to 899


def choose_new(ids, maskable, words=None, **options):
    return run(ids, maskable, words, prefer_from=NEW_FROM, **options)


@settings(deadline=None)
@given(shapes, rates, st.booleans())
def test_preferred_tokens_leave_the_number_and_the_words_as_they_are(shape, rate, whole):
    ids, maskable, starts = example(*shape)
    result = choose_new(ids, maskable, starts if whole else None, rate=rate)
    for row in range(len(ids)):
        chosen = set(chosen_of(result, row))
        budget = round(rate * int(maskable[row].sum()))
        assert all(maskable[row, place] for place in chosen)
        if not whole:
            assert len(chosen) == budget
            continue
        assert len(chosen) <= budget
        for word in words_of(maskable[row], starts[row]):
            assert chosen.intersection(word) in (set(), set(word))
            assert chosen.issuperset(word) or len(word) > budget - len(chosen)


@pytest.mark.parametrize("whole", [False, True])
def test_a_rare_new_token_is_masked_in_half_of_the_draws(whole):
    """Three of 100 tokens are new: without the preference 15 % of them would be masked. The other positions are drawn as without it."""
    ids = np.full((4000, 100), 50, np.int32)
    ids[:, [7, 40, 99]] = NEW_FROM
    maskable, starts = np.ones_like(ids, bool), np.tile(np.arange(100) % 2 == 0, (4000, 1))
    result = choose_new(ids, maskable, starts if whole else None)
    assert (result.weights.sum(axis=1) == (14 if whole else 15)).all()  # words of two fill an even number
    masked = np.zeros_like(maskable)
    np.put_along_axis(masked, result.positions[:, : 14 if whole else 15], True, axis=1)
    shares = masked.mean(axis=0)
    np.testing.assert_allclose(shares[[7, 40, 99]], 0.5 + 0.5 * 0.14, atol=0.04)
    if whole:  # the words that hold them
        np.testing.assert_array_equal(masked[:, [6, 41, 98]], masked[:, [7, 40, 99]])
    others = np.delete(shares, [6, 7, 40, 41, 98, 99])
    np.testing.assert_allclose(others, ((14 if whole else 15) - shares.sum() + others.sum()) / len(others), atol=0.025)
    together = masked[:, 7] & masked[:, 40]
    assert abs(together.mean() - 0.57**2) < 0.04, "one toss a word, not one a row"


@pytest.mark.parametrize("whole", [False, True])
def test_many_new_tokens_get_half_of_the_budget_first(whole):
    ids = np.full((500, 100), 50, np.int32)
    ids[:, :50] = NEW_FROM  # far more candidates than there is room for
    maskable = np.ones_like(ids, bool)
    result = choose_new(ids, maskable, maskable if whole else None, rate=0.2)
    assert (result.weights.sum(axis=1) == 20).all()
    new = (result.positions < 50).sum(axis=1)
    assert new.min() >= 10, "half goes to the candidates"
    # The other half is drawn from the 40 new and 50 old that are left.
    assert abs(new.mean() - (10 + 10 * 40 / 90)) < 0.3


def test_preferred_tokens_are_hidden_like_others():
    ids, maskable, _ = example(5, 2000, 100)
    result = choose_new(ids, maskable)
    used = result.weights > 0
    now = np.take_along_axis(result.input_ids, result.positions, axis=1)[used]
    new = result.labels[used] >= NEW_FROM
    assert new.mean() > 0.3  # of the vocabulary it is 11 %
    for of in (new, ~new):
        shares = [(now[of] == MASK).mean(), (now[of] >= 1000).mean(), ((now[of] != MASK) & (now[of] < 1000)).mean()]
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)


def test_without_new_tokens_the_number_is_filled_all_the_same():
    ids, maskable, starts = example(6, 20, 60)
    old = np.minimum(ids, NEW_FROM - 1)
    for words in (None, starts):
        assert (choose_new(old, maskable, words).weights == run(old, maskable, words).weights).all()
        part = choose_new(ids[[3, 9]], maskable[[3, 9]], None if words is None else words[[3, 9]], row_index=np.array([3, 9]))
        whole = choose_new(ids, maskable, words)
        assert all((a == b[[3, 9]]).all() for a, b in zip(part, whole, strict=True))
