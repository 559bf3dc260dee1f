"""The texts held out for validation: a fixed share, never a copy of a training text."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.corpus.holdout import hold_out, hold_out_rows
from jaxplm.errors import UserError


class Store(NamedTuple):
    tokens: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray


def make_store(texts: list[list[int]]) -> Store:
    tokens = np.array([t for text in texts for t in text], np.uint16)
    return Store(tokens, np.ones(len(tokens), bool), np.cumsum([0] + [len(text) for text in texts]))


texts_st = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=2, max_size=60)


@settings(deadline=None)
@given(texts_st, st.floats(0.0, 1.0))
def test_two_sides_that_share_nothing(texts, share):
    store = make_store(texts)
    if len({tuple(text) for text in texts}) == 1:
        with refuses("data.validation"):
            hold_out(store, share)
        return
    train, held_out = hold_out(store, share)
    assert len(train) and len(held_out)
    assert sorted([*train, *held_out]) == list(range(len(texts)))
    assert not {tuple(texts[i]) for i in train} & {tuple(texts[i]) for i in held_out}


@settings(deadline=None)
@given(texts_st, st.randoms(use_true_random=False))
def test_the_order_of_the_corpus_does_not_matter(texts, random):
    if len({tuple(text) for text in texts}) == 1:
        return
    shuffled = random.sample(texts, len(texts))
    before, after = (sorted(tuple(t[i]) for i in hold_out(make_store(t), 0.3)[1]) for t in (texts, shuffled))
    assert before == after


def test_the_share_is_kept():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 1000, n).tolist() for n in rng.integers(1, 80, 2000)]
    train, held_out = hold_out(make_store(texts), 0.05)
    tokens = sum(len(texts[i]) for i in held_out)
    assert 0.045 < tokens / sum(map(len, texts)) <= 0.05
    assert len(held_out) == pytest.approx(100, abs=30)


def test_few_long_texts_give_up_the_shortest():
    assert hold_out(make_store([[1] * 90, [2] * 30, [3] * 80]), 0.05)[1].tolist() == [1]


def test_texts_that_differ_late_count_as_different_by_length_only():
    long = list(range(40))
    with pytest.raises(UserError):
        hold_out(make_store([[*long, 1], [*long, 2]]), 0.5)
    assert len(hold_out(make_store([[*long, 1], [*long, 1, 2]]), 0.5)[1]) == 1


keys_st = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60)


@settings(deadline=None)
@given(keys_st, st.floats(0.001, 0.9))
def test_rows_of_one_text_stay_on_one_side(keys, share):
    if len(set(keys)) == 1:
        with refuses("data.validation"):
            hold_out_rows(keys, share)
        return
    train, held_out = hold_out_rows(keys, share)
    assert len(train) and len(held_out)
    assert sorted([*train, *held_out]) == list(range(len(keys)))
    assert (np.diff(train) > 0).all() and (np.diff(held_out) > 0).all()
    assert not {keys[i] for i in train} & {keys[i] for i in held_out}


@settings(deadline=None)
@given(keys_st, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(keys, random):
    if len(set(keys)) > 1:
        shuffled = random.sample(keys, len(keys))
        before, after = (sorted(some[i] for i in hold_out_rows(some, 0.3)[1]) for some in (keys, shuffled))
        assert before == after


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_share_of_rows_is_kept(share):
    assert len(hold_out_rows([f"text {i}" for i in range(2000)], share)[1]) == pytest.approx(2000 * share, abs=1)
    contexts = [f"context {i // 5}" for i in range(2000)]  # five questions about each
    assert len(hold_out_rows(contexts, share)[1]) == pytest.approx(2000 * share, abs=5)


def test_labels_are_held_out_alike():
    """Rows that are sorted by label, as files often are: both sides see every label."""
    keys = [f"{'good' if i < 500 else 'bad'} film {i}" for i in range(1000)]
    held_out = hold_out_rows(keys, 0.2)[1]
    assert (held_out < 500).sum() == pytest.approx(100, abs=35)
