"""A fixed sample of labelled rows."""

from collections import Counter

from jaxplm.data.labelled.spread import spread_rows

KEYS = [f"text {i}" for i in range(1000)]
LABELS = ["a"] * 700 + ["b"] * 280 + ["c"] * 20  # sorted by label, as many files are


def test_a_sample_keeps_the_shares_of_the_labels():
    for rows in (10, 100, 500):
        found = Counter(LABELS[i] for i in spread_rows(KEYS, LABELS, rows))
        for label, total in Counter(LABELS).items():
            assert abs(found[label] - rows * total / 1000) <= 2, (rows, label)
    assert set(LABELS[i] for i in spread_rows(KEYS, LABELS, 3)) == {"a", "b", "c"}


def test_a_larger_sample_contains_a_smaller_one_whatever_the_order_of_the_rows():
    few, more = (set(spread_rows(KEYS, LABELS, rows)) for rows in (50, 200))
    assert len(few) == 50 and few < more
    turned = {KEYS[::-1][i] for i in spread_rows(KEYS[::-1], LABELS[::-1], 50)}
    assert turned == {KEYS[i] for i in few}


def test_rows_are_spread_over_the_input_and_all_are_the_whole():
    found = spread_rows(KEYS, [None] * 1000, 100)
    assert list(found) == sorted(found) and len(set(found // 100)) == 10
    assert list(spread_rows(KEYS, LABELS, 1000)) == list(range(1000))
