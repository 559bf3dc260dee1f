"""Which way is recommended: hand-made cases, and what must hold for any numbers."""

import dataclasses

import comparison_examples as examples
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxplm.reporting.comparison.comparison import Comparison, Cost, Encoder, Run, Way
from jaxplm.reporting.comparison.findings import CONTROLS, Findings, Gain, Standing, find
from jaxplm.reporting.comparison.recommendation import Verdict, recommend, rows_to_decide
from jaxplm.reporting.comparison.standing import standing
from jaxplm.reporting.comparison.wording import LANGUAGES, Wording

METRIC = "macro_f1"


def way(
    name: str, score: float, flops: float = 1.0, *, seeds: int = 5, method: str = "finetune", **more: object
) -> Way:
    runs = tuple(Run(seed, {METRIC: score, "mse": score}, {METRIC: score, "mse": score}) for seed in range(seeds))
    return Way(name, method, runs, training=Cost(1, flops, 60 * flops), **more)  # type: ignore[arg-type]


def found(
    ways: list[Way], gains: dict[str, tuple[float, float, float]], tied: tuple[str, ...] = (), **more: object
) -> Findings:
    """Findings of one method; gains are (low, high, p_holm), the mean is in the middle."""
    comparison = Comparison(
        **({"metric": METRIC, "higher_is_better": True, "kind": "classify", "ways": tuple(ways)} | more)
    )  # type: ignore[arg-type]
    measured = {(name, "finetune"): Gain((low + high) / 2, low, high, p, p) for name, (low, high, p) in gains.items()}
    return find(comparison, Standing(measured, frozenset((name, "finetune") for name in tied), 100))


def keys(verdict: Verdict) -> set[str]:
    return {message.key for message in (*verdict.reasons, *verdict.cautions, *verdict.next_steps)}


def taken(verdict: Verdict) -> str:
    return verdict.choice.way.name if verdict.choice else ""


def test_the_best_way_that_stands_alone() -> None:
    verdict = recommend(
        found(
            [way("base", 0.6), way("dapt", 0.7, 9), way("tapt", 0.65, 2)],
            {"dapt": (0.06, 0.14, 0.001), "tapt": (0.01, 0.09, 0.02)},
        )
    )
    assert (verdict.kind, taken(verdict), verdict.sureness) == ("take", "dapt", "high")
    assert {one.way.name for one in verdict.better_than} == {"base", "tapt"}
    assert "reason.alone" in keys(verdict) and not keys(verdict) & {"reason.dearer_ties", "reason.cheaper_ties"}


def test_of_ways_that_tie_the_cheapest_that_is_better_than_base() -> None:
    ways = [way("base", 0.6), way("dapt+tapt", 0.7, 9), way("dapt", 0.69, 8), way("tapt", 0.67, 2)]
    verdict = recommend(
        found(
            ways,
            {"dapt+tapt": (0.06, 0.14, 0.001), "dapt": (0.05, 0.13, 0.004), "tapt": (-0.01, 0.09, 0.2)},
            ("dapt+tapt", "dapt", "tapt"),
        )
    )
    assert (verdict.kind, taken(verdict)) == ("take", "dapt")
    assert [one.way.name for one in verdict.better_than] == [
        "base"
    ]  # tapt is cheaper, and nothing shows that dapt is better
    assert {"reason.best_ties", "reason.cheaper_ties"} <= keys(verdict)


def test_base_does_not_tie_with_a_way_that_is_shown_to_be_better() -> None:
    """Two tests of one difference, corrected for different numbers of ways, may disagree: the one against `base` counts."""
    findings = found([way("base", 0.6), way("dapt", 0.7, 9)], {"dapt": (0.01, 0.19, 0.04)}, ("base", "dapt"))
    assert [one.is_tied for one in findings.outcomes] == [False, True]
    assert taken(recommend(findings)) == "dapt"


def test_a_control_is_never_taken() -> None:
    ways = [way("base", 0.6), way("off-domain-dapt", 0.72, 3), way("dapt", 0.71, 9)]
    verdict = recommend(
        found(ways, {"off-domain-dapt": (0.08, 0.16, 0.001), "dapt": (0.07, 0.15, 0.001)}, ("off-domain-dapt", "dapt"))
    )
    assert taken(verdict) == "dapt" and "caution.off_domain" in keys(verdict)


def test_base_where_no_gain_is_likely() -> None:
    verdict = recommend(
        found([way("base", 0.6), way("dapt", 0.601, 9)], {"dapt": (-0.005, 0.007, 0.8)}, ("base", "dapt"))
    )
    assert (verdict.kind, taken(verdict), keys(verdict)) == ("keep_base", "base", {"reason.no_gain"})


def test_an_untrained_encoder_that_ties_leaves_nothing_to_decide() -> None:
    """No way gains, and none loses: that is no reason to keep `base`."""
    ways = [way("random", 0.2), way("base", 0.2), way("dapt", 0.2, 9)]
    verdict = recommend(
        found(ways, {"random": (-0.001, 0.001, 1.0), "dapt": (-0.001, 0.001, 1.0)}, ("random", "base", "dapt"))
    )
    assert (verdict.kind, taken(verdict)) == ("undecided", "") and {"reason.floor_ties", "step.learn"} <= keys(verdict)


def test_ways_that_all_predict_the_same_leave_nothing_to_decide() -> None:
    verdict = recommend(found([way("base", 0.1), way("dapt", 0.1, 9)], {"dapt": (0.0, 0.0, 1.0)}, ("base", "dapt")))
    assert (verdict.kind, keys(verdict)) == ("undecided", {"reason.same", "step.learn"})


def test_wide_intervals_do_not_decide() -> None:
    verdict = recommend(
        found(
            [way("base", 0.6, seeds=3), way("dapt", 0.62, 9, seeds=3)], {"dapt": (-0.02, 0.06, 0.3)}, ("base", "dapt")
        )
    )
    assert (verdict.kind, taken(verdict)) == ("undecided", "")
    assert {"reason.best_not_shown", "step.seeds", "step.rows"} <= keys(verdict)
    assert verdict.next_steps[1].values == {"rows": 820, "now": 100}


def test_rows_that_would_decide() -> None:
    """Half the interval is 0.04 = 1.96 errors; 2.8 errors shrink to 0.02 with (2.8 · 0.0204 / 0.02)² = 8.16 times the rows."""
    findings = found(
        [way("base", 0.6), way("dapt", 0.62), way("tapt", 0.6), way("worse", 0.5)],
        {"dapt": (-0.02, 0.06, 0.3), "tapt": (-0.04, 0.0402, 1.0), "worse": (-0.2, -0.1, 0.01)},
    )
    assert [rows_to_decide(findings, one) for one in findings.outcomes] == [None, 820, None, None]


def test_no_test_set() -> None:
    ways = [
        dataclasses.replace(one, runs=tuple(dataclasses.replace(run, test={}) for run in one.runs))
        for one in (way("base", 0.6), way("dapt", 0.7, 9))
    ]
    findings = found(ways, {})
    verdict = recommend(findings)
    assert (findings.split, verdict.kind) == ("validation", "undecided")
    assert {"reason.not_tested", "caution.validation", "step.test_set"} <= keys(verdict)


def test_nothing_measured_and_failures() -> None:
    findings = found(
        [Way("base", "finetune", failure="stages/base: killed"), Way("dapt", "finetune")], {}, complete=False
    )
    verdict = recommend(findings)
    assert (verdict.kind, keys(verdict)) == ("nothing", {"caution.incomplete", "caution.failed"})


def test_without_base_there_is_no_recommendation() -> None:
    verdict = recommend(found([way("dapt", 0.6), way("tapt", 0.7)], {}, ("dapt", "tapt")))
    assert verdict.kind == "undecided" and {"reason.no_base", "step.base"} <= keys(verdict)


def test_a_loss_is_better_where_it_is_lower() -> None:
    verdict = recommend(
        found(
            [way("base", 1.0), way("dapt", 0.8, 9)], {"dapt": (-0.3, -0.1, 0.001)}, metric="mse", higher_is_better=False
        )
    )
    assert (verdict.kind, taken(verdict)) == ("take", "dapt")
    worse = recommend(
        found(
            [way("base", 1.0), way("dapt", 1.2, 9)], {"dapt": (0.1, 0.3, 0.001)}, metric="mse", higher_is_better=False
        )
    )
    assert (worse.kind, taken(worse)) == ("keep_base", "base")


@pytest.mark.parametrize(
    ("seeds", "p", "complete", "sureness"),
    [
        (5, 0.001, True, "high"),
        (5, 0.03, True, "moderate"),
        (3, 0.001, True, "moderate"),
        (2, 0.001, True, "low"),
        (5, 0.001, False, "low"),
    ],
)
def test_how_sure(seeds: int, p: float, complete: bool, sureness: str) -> None:
    ways = [way("base", 0.6, seeds=seeds), way("dapt", 0.7, 9, seeds=seeds)]
    assert recommend(found(ways, {"dapt": (0.05, 0.15, p)}, complete=complete)).sureness == sureness


@pytest.mark.parametrize(
    ("losses", "general", "expected"),
    [
        ((3.0, 2.8, 2.6, 2.4, 2.2, 2.0), (2.0, 2.02), {"step.longer"}),
        ((3.0, 2.2, 2.1, 2.05, 2.01, 2.0), (2.0, 2.3), {"caution.forgets"}),
        ((3.0, 2.2, 2.0, 2.1, 2.2, 2.3), (2.0, 1.9), {"step.more_corpus"}),
    ],
)
def test_what_the_encoder_s_losses_say(
    losses: tuple[float, ...], general: tuple[float, float], expected: set[str]
) -> None:
    encoder = Encoder("dapt", (losses[0], losses[-1]), general, tuple((i, loss, 2.0) for i, loss in enumerate(losses)))
    verdict = recommend(
        found([way("base", 0.6), way("dapt", 0.7, 9)], {"dapt": (0.05, 0.15, 0.001)}, encoders=(encoder,))
    )
    assert keys(verdict) & {"step.longer", "step.more_corpus", "caution.forgets"} == expected


def test_a_learning_rate_at_the_end_of_the_list() -> None:
    tried = ((1e-5, 0.5), (2e-5, 0.6), (5e-5, 0.7))
    ways = [way("base", 0.6, tried=tried, learning_rate=2e-5), way("dapt", 0.7, 9, tried=tried, learning_rate=5e-5)]
    assert "caution.rate_largest" in keys(recommend(found(ways, {"dapt": (0.05, 0.15, 0.001)})))


def test_the_example_with_the_real_statistics() -> None:
    """Ways with the domain's text gain more than ten points, which 139 rows and five seeds show."""
    comparison = examples.comparison(methods=("finetune",))
    verdict = recommend(find(comparison, standing(comparison)))
    assert verdict.kind == "take" and "dapt" in taken(verdict) and "off-domain" not in taken(verdict)


NAMES = ("base", "random", "dapt", "tapt", "dapt+tapt", "off-domain-dapt", "<b>|*")
gains = st.builds(
    lambda mean, half, p: Gain(mean, mean - half, mean + half, p, p),
    st.floats(-0.3, 0.3),
    st.floats(0.001, 0.3),
    st.floats(0, 1),
)


@st.composite
def findings(draw: st.DrawFn) -> Findings:
    ways, statistics, tied = [], {}, set()
    for method in draw(st.sampled_from((("finetune",), ("finetune", "feature_extraction")))):
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
            state = draw(st.sampled_from(("done", "done", "done", "failed", "waiting")))
            if state != "done":
                ways.append(Way(name, method, failure="x" if state == "failed" else ""))
                continue
            ways.append(
                way(name, draw(st.floats(0, 1)), draw(st.floats(0, 1e20)), seeds=draw(st.integers(1, 6)), method=method)
            )
            if name != "base" and draw(st.booleans()):
                statistics[name, method] = draw(gains)
            if draw(st.booleans()):
                tied.add((name, method))
    bases = {one.method for one in ways if one.name == "base" and one.runs}
    statistics = {key: gain for key, gain in statistics.items() if key[1] in bases}
    comparison = Comparison(METRIC, draw(st.booleans()), "classify", tuple(ways), complete=draw(st.booleans()))
    return find(comparison, Standing(statistics, frozenset(tied), draw(st.sampled_from((None, 139)))))


@settings(max_examples=400, deadline=None)
@given(findings())
def test_what_holds_for_any_numbers(measured: Findings) -> None:
    verdict = recommend(measured)
    choice = verdict.choice
    tied = [one for one in measured.done if one.is_tied]
    if verdict.kind == "take":
        assert choice is not None and choice in tied and not choice.is_base and choice.way.name not in CONTROLS
        assert measured.is_significant(choice), "a way is better than base only where the bootstrap shows it"
        for other in verdict.better_than:
            assert other is measured.base(choice.way.method) or (choice.is_best and not other.is_tied)
        cheaper = [one for one in tied if measured.cost_of(one) < measured.cost_of(choice)]
        assert not [one for one in cheaper if measured.is_significant(one) and one.way.name not in CONTROLS]
        assert not [one for one in cheaper if one in verdict.better_than]
    elif verdict.kind == "keep_base":
        assert choice is not None and choice.is_base and not verdict.better_than
    else:
        assert choice is None and verdict.sureness is None and not verdict.better_than
    for language in LANGUAGES:
        words = Wording(language, str, str, str)
        for message in (verdict.headline, *verdict.reasons, *verdict.cautions, *verdict.next_steps):
            assert words.text(message.key, message.values)


@settings(max_examples=200, deadline=None)
@given(findings())
def test_the_pareto_front(measured: Findings) -> None:
    front = measured.front
    for one in measured.done:
        if measured.cost_of(one) > 0:
            dominated = any(
                measured.cost_of(other) <= measured.cost_of(one) and not measured.better(one.mean - other.mean)
                for other in measured.done
                if other is not one and measured.cost_of(other) > 0
            )
            assert one in front or dominated
    for cheap, dear in zip(front, front[1:], strict=False):
        assert measured.cost_of(cheap) < measured.cost_of(dear) and measured.better(dear.mean - cheap.mean)
