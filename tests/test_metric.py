"""Which way a score is better."""

import math

import pytest

from jaxplm.scores.metric import LOSS, Metric, metric_named
from jaxplm.scores.names import SHARES


@pytest.mark.parametrize("name", sorted(SHARES))
def test_more_of_a_share_is_better(name: str) -> None:
    metric = metric_named(name)
    assert metric == Metric(name, higher_is_better=True)
    assert metric.better(0.5, 0.4) and not metric.better(0.4, 0.5) and not metric.better(0.4, 0.4)


@pytest.mark.parametrize("name", ["loss", "perplexity", "loss_per_character", "pair_loss", "mse"])
def test_less_of_an_error_is_better(name: str) -> None:
    metric = metric_named(name)
    assert metric == Metric(name, higher_is_better=False)
    assert metric.better(0.4, 0.5) and not metric.better(0.5, 0.4) and not metric.better(0.4, 0.4)


@pytest.mark.parametrize("metric", [LOSS, metric_named("spearman")])
@pytest.mark.parametrize("none", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_beats_nothing_and_is_beaten(metric: Metric, none: float | None) -> None:
    assert metric.better(-0.7, none) and not metric.better(none, -0.7) and not metric.better(none, math.nan)
    assert metric.cost(none) == math.inf


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError) as caught:
        metric_named("f2")
    assert "'f2'" in str(caught.value) and "macro_f1" in str(caught.value) and "mse" in str(caught.value)
