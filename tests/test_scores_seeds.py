"""Mean and standard deviation over seeds, and the table that shows them."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import refuses

from jaxplm.reporting.tables import markdown, seed_table
from jaxplm.scores.seeds import format_mean_std, mean_std


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_mean_and_deviation_of_a_sample(values: list[float]) -> None:
    assert mean_std(values) == pytest.approx((statistics.mean(values), statistics.stdev(values)), abs=1e-12)


def test_one_value_and_none() -> None:
    mean, std = mean_std([0.5])
    assert mean == 0.5 and math.isnan(std)
    assert all(math.isnan(value) for value in mean_std([]))


def test_how_they_are_written() -> None:
    assert format_mean_std("macro_f1", [0.839, 0.842, 0.845]) == "84.2 ± 0.3"
    assert format_mean_std("mse", [0.5, 0.6]) == "0.550 ± 0.071"
    assert format_mean_std("accuracy", [1.0]) == "100.0"


def test_table_of_seeds() -> None:
    table = seed_table({3: {"validation mse": 0.5, "test macro_f1": 0.839}, 1: {"validation mse": 0.6, "test macro_f1": 0.845}})
    assert table == [
        ("seed", "validation MSE", "test macro-F1, %"),
        ("3", "0.500", "83.9"),
        ("1", "0.600", "84.5"),
        ("mean ± std", "0.550 ± 0.071", "84.2 ± 0.4"),
    ]
    assert markdown(table, "lrr").count("\n") == 4
    with refuses("seed 2", "f1", "mse", error=ValueError):
        seed_table({1: {"mse": 1.0}, 2: {"f1": 1.0}})
