"""Which way to take by the numbers of a comparison, how sure that is, and what would decide where they do not.

A way is called better than `base` only where the bootstrap shows it. Of the ways that are not distinguishable from the
best one, the cheapest that is shown to be better than `base` is recommended. The texts are in the catalogue; here are
their keys and values.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxplm.reporting.comparison.comparison import Encoder
from jaxplm.reporting.comparison.findings import Findings, Gain, Outcome, scores_of
from jaxplm.reporting.comparison.wording import Change, Level, Method, Names, Seconds, Times, WayName
from jaxplm.scores.names import SHARES
from jaxplm.scores.seeds import mean_std

Kind = Literal["take", "keep_base", "undecided", "nothing"]
Sureness = Literal["high", "moderate", "low"]

SMALL_SHARE = 0.01  # a gain below one point, or below 1 % of another score, is not worth an adaptation
FORGETS = 0.05  # a rise of the general loss by more than this is mentioned
ENOUGH_SEEDS = 5
MOST_ROWS = 50  # times as many test rows as there are; beyond that, more rows are no advice
_Z_INTERVAL, _Z_POWER = 1.96, 2.8  # half a 95 % interval; a difference that is found in 80 % of repetitions


@dataclass(frozen=True)
class Message:
    """A text of the catalogue with the values in it."""

    key: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The answer to the question which way to take.

    Attributes:
      kind: "take" a way, "keep_base", "undecided", or "nothing" has been measured.
      choice: the way to take, or `base`.
      better_than: the ways that the choice is shown to be better than.
      sureness: of the choice; None without one.
      headline: one sentence.
      reasons: why.
      cautions: what limits the answer.
      next_steps: what would decide, or make the answer surer.
    """

    kind: Kind
    choice: Outcome | None
    better_than: tuple[Outcome, ...]
    sureness: Sureness | None
    headline: Message
    reasons: tuple[Message, ...] = ()
    cautions: tuple[Message, ...] = ()
    next_steps: tuple[Message, ...] = ()


def recommend(findings: Findings) -> Verdict:
    """Return the verdict that follows from the numbers."""
    best = findings.best
    if best is None or all(outcome.is_control for outcome in findings.done):
        return Verdict(
            "nothing", None, (), None, Message("verdict.nothing"), cautions=tuple(_general_cautions(findings))
        )
    tied = [outcome for outcome in findings.done if outcome.is_tied]
    shown = [outcome for outcome in tied if findings.is_significant(outcome) and not outcome.is_control]
    if shown and not any(outcome.is_base for outcome in tied):
        return _take(findings, min(shown, key=findings.cost_of), tied)
    return _keep_or_undecided(findings, tied)


def _take(findings: Findings, choice: Outcome, tied: Sequence[Outcome]) -> Verdict:
    base = findings.base(choice.way.method)
    assert base is not None and choice.gain is not None  # a gain is measured against it
    metric = findings.comparison.metric
    beaten = [base]
    if choice.is_best:
        beaten += [other for other in findings.done if other not in tied and other is not base]
    gain = choice.gain
    reasons = [
        Message(
            "reason.gain",
            {
                "way": WayName(choice.way.name),
                "score": Level(metric, choice.mean),
                "base": Level(metric, base.mean),
                **_interval(metric, gain),
            },
        )
    ]
    best = findings.best
    if best is not None and best is not choice:
        reasons.append(
            Message(
                "reason.best_ties",
                {
                    "best": _names([best], choice),
                    "score": Level(metric, best.mean),
                    "way": WayName(choice.way.name),
                    "share": round(100 * findings.cost_of(choice) / findings.cost_of(best))
                    if findings.cost_of(best) > 0
                    else 100,
                },
            )
        )
    others = [other for other in tied if other is not choice and other is not best]
    dearer = [other for other in others if findings.cost_of(other) >= findings.cost_of(choice)]
    cheaper = [other for other in others if other not in dearer]
    if choice is best and not others:
        reasons.append(Message("reason.alone"))
    if dearer:
        reasons.append(Message("reason.dearer_ties", {"ways": _names(dearer, choice)}))
    if cheaper:
        reasons.append(Message("reason.cheaper_ties", {"ways": _names(cheaper, choice)}))
    reasons += _cost_reason(findings, choice, base)
    reasons += _few_reason(findings, choice)
    sureness = _sureness(findings, choice)
    return Verdict(
        "take",
        choice,
        tuple(beaten),
        sureness,
        Message("verdict.take", {"way": WayName(choice.way.name), "method": Method(choice.way.method)}),
        tuple(reasons),
        (*_general_cautions(findings), *_choice_cautions(findings, choice)),
        tuple(_surer(findings, choice, sureness)),
    )


def _keep_or_undecided(findings: Findings, tied: Sequence[Outcome]) -> Verdict:
    metric = findings.comparison.metric
    compared = [outcome for outcome in findings.done if outcome.gain is not None and not outcome.is_control]
    bases = [outcome for outcome in findings.done if outcome.is_base]
    keep = min((base for base in bases if base in tied), key=findings.cost_of, default=None) or max(
        bases, key=lambda base: base.mean if findings.comparison.higher_is_better else -base.mean, default=None
    )
    cautions = tuple(_general_cautions(findings))
    if not compared or keep is None:
        why = "reason.no_base" if keep is None else "reason.no_other" if len(findings.done) < 2 else "reason.not_tested"
        return Verdict(
            "undecided",
            None,
            (),
            None,
            Message("verdict.undecided"),
            (Message(why),),
            cautions,
            tuple(_more_measurements(findings)),
        )
    if all(outcome.gain is not None and outcome.gain.low == outcome.gain.high == 0 for outcome in compared):
        verdict = Message("verdict.undecided")
        return Verdict(
            "undecided", None, (), None, verdict, (Message("reason.same"),), cautions, (Message("step.learn"),)
        )
    most = max(_upper(findings, outcome) for outcome in compared)
    worth = SMALL_SHARE if metric in SHARES else SMALL_SHARE * abs(keep.mean)
    best = max(compared, key=lambda outcome: _oriented(findings, outcome.gain.mean if outcome.gain else 0.0))
    assert best.gain is not None  # it is among those that were compared
    values = {"way": WayName(best.way.name), "method": Method(best.way.method), **_interval(metric, best.gain)}
    controls = [outcome for outcome in tied if outcome.is_control]
    floor = any(outcome.way.name == "random" for outcome in controls)
    if most < worth and findings.comparison.complete and not floor:
        limit = Change(metric, most if findings.comparison.higher_is_better else -most)
        return Verdict(
            "keep_base",
            keep,
            (),
            "moderate" if _seeds(keep) >= ENOUGH_SEEDS else "low",
            Message("verdict.keep_base", {"method": Method(keep.way.method)}),
            (Message("reason.no_gain", values | {"most": limit}),),
            cautions,
        )
    reasons = [Message("reason.best_not_shown", values)]
    if floor:
        reasons.append(Message("reason.floor_ties"))
    elif controls:
        reasons.append(
            Message("reason.control_ties", {"ways": Names(tuple(dict.fromkeys(one.way.name for one in controls)))})
        )
    return Verdict(
        "undecided",
        None,
        (),
        None,
        Message("verdict.undecided"),
        tuple(reasons),
        cautions,
        tuple(_deciders(findings, best)),
    )


def _cost_reason(findings: Findings, choice: Outcome, base: Outcome) -> Iterator[Message]:
    if findings.cost_of(base) > 0:
        yield Message(
            "reason.cost",
            {
                "seconds": Seconds(choice.total.seconds),
                "base_seconds": Seconds(base.total.seconds),
                "times": Times(findings.cost_of(choice) / findings.cost_of(base)),
            },
        )


def _few_reason(findings: Findings, choice: Outcome) -> Iterator[Message]:
    """Yield the gain with the fewest labels, on the set that scores are shown of."""
    base = findings.base(choice.way.method)
    if base is None or not choice.way.few or not base.way.few:
        return
    metric = findings.comparison.metric
    rows, runs = choice.way.few[0]
    base_runs = dict(base.way.few).get(rows, ())
    own, others = scores_of(runs, findings.split, metric), scores_of(base_runs, findings.split, metric)
    if own and others:
        gain = mean_std(own)[0] - mean_std(others)[0]
        yield Message(
            "reason.few",
            {"rows": rows, "gain": Change(metric, gain), "all_gain": Change(metric, choice.mean - base.mean)},
        )


def _sureness(findings: Findings, choice: Outcome) -> Sureness:
    seeds = min(_seeds(choice), _seeds(findings.base(choice.way.method)))
    if seeds < 3 or not findings.comparison.complete:
        return "low"
    return "high" if seeds >= ENOUGH_SEEDS and choice.gain is not None and choice.gain.p_holm < 0.01 else "moderate"


def _general_cautions(findings: Findings) -> Iterator[Message]:
    if not findings.comparison.complete:
        yield Message("caution.incomplete")
    if findings.failed:
        yield Message("caution.failed", {"ways": Names(tuple(dict.fromkeys(one.way.name for one in findings.failed)))})
    if findings.done and findings.split == "validation":
        yield Message("caution.validation")


def _choice_cautions(findings: Findings, choice: Outcome) -> Iterator[Message]:
    control = next(
        (one for one in findings.done if one.way.name == "off-domain-dapt" and one.way.method == choice.way.method),
        None,
    )
    if control is not None and (control.is_tied or findings.is_significant(control)) and control.gain is not None:
        yield Message("caution.off_domain", {"gain": Change(findings.comparison.metric, control.gain.mean)})
    encoder = _encoder(findings, choice)
    if encoder is not None and encoder.general is not None:
        before, after = encoder.general
        if before > 0 and after / before - 1 > FORGETS:
            yield Message("caution.forgets", {"before": Level("loss", before), "after": Level("loss", after)})
    for outcome in (choice, findings.base(choice.way.method)):
        rates = sorted(rate for rate, _ in outcome.way.tried) if outcome else []
        if outcome and len(rates) > 1 and outcome.way.learning_rate in (rates[0], rates[-1]):
            side = "smallest" if outcome.way.learning_rate == rates[0] else "largest"
            yield Message(f"caution.rate_{side}", {"way": WayName(outcome.way.name)})


def _surer(findings: Findings, choice: Outcome, sureness: Sureness) -> Iterator[Message]:
    if sureness != "high" and _seeds(choice) < ENOUGH_SEEDS:
        yield Message("step.seeds", {"seeds": _seeds(choice), "enough": ENOUGH_SEEDS})
    yield from _corpus_steps(findings, choice)


def _more_measurements(findings: Findings) -> Iterator[Message]:
    if all(outcome.way.name != "base" for outcome in findings.outcomes):
        yield Message("step.base")
    if findings.split == "validation":
        yield Message("step.test_set")


def _deciders(findings: Findings, best: Outcome) -> Iterator[Message]:
    """Yield what would decide, from what helps most to what may help."""
    yield from _more_measurements(findings)
    if any(outcome.is_tied and outcome.way.name == "random" for outcome in findings.done):
        yield Message("step.learn")
    if (seeds := _seeds(best)) < ENOUGH_SEEDS:
        yield Message("step.seeds", {"seeds": seeds, "enough": ENOUGH_SEEDS})
    if rows := rows_to_decide(findings, best):
        yield Message("step.rows", {"rows": rows, "now": findings.test_rows})
    elif findings.test_rows is not None:
        yield Message("step.rows_no_help")
    yield from _corpus_steps(findings, best)


def rows_to_decide(findings: Findings, outcome: Outcome) -> int | None:
    """Estimate how many test rows would show a gain of the measured size in 80 % of repetitions; None if out of reach.

    The interval's half is 1.96 standard errors, and these shrink with the square root of the rows. What the seeds add
    to the interval does not shrink so, which makes this the least that is needed.
    """
    gain = outcome.gain
    if gain is None or findings.test_rows is None or not findings.better(gain.mean):
        return None
    error = (gain.high - gain.low) / 2 / _Z_INTERVAL
    ratio = _Z_POWER * error / abs(gain.mean)
    if not 1 < ratio <= math.sqrt(MOST_ROWS):
        return None
    rows = ratio**2 * findings.test_rows
    digits = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return math.ceil(rows / digits) * digits


def _corpus_steps(findings: Findings, outcome: Outcome) -> Iterator[Message]:
    encoder = _encoder(findings, outcome)
    if encoder is None:
        return
    losses = [loss for _, loss, _ in encoder.curve if math.isfinite(loss)]
    if len(losses) < 4:
        return
    fallen, late = losses[0] - min(losses), losses[2 * len(losses) // 3] - losses[-1]
    if losses[-1] > 1.01 * min(losses):
        yield Message("step.more_corpus", {"way": WayName(encoder.name)})
    elif fallen > 0 and late > 0.1 * fallen:
        yield Message("step.longer", {"way": WayName(encoder.name)})


def _encoder(findings: Findings, outcome: Outcome) -> Encoder | None:
    return next((encoder for encoder in findings.comparison.encoders if encoder.name == outcome.way.name), None)


def _interval(metric: str, gain: Gain) -> dict[str, Change]:
    return {
        "gain": Change(metric, gain.mean),
        "low": Change(metric, gain.low, unit=False),
        "high": Change(metric, gain.high, unit=False),
    }


def _names(outcomes: Sequence[Outcome], choice: Outcome) -> Names:
    """Return the names of ways, each with its method where it is not that of the choice."""
    return Names(
        tuple(outcome.way.name for outcome in outcomes),
        tuple(outcome.way.method if outcome.way.method != choice.way.method else "" for outcome in outcomes),
    )


def _seeds(outcome: Outcome | None) -> int:
    return len(outcome.scores) if outcome else 0


def _oriented(findings: Findings, difference: float) -> float:
    return difference if findings.comparison.higher_is_better else -difference


def _upper(findings: Findings, outcome: Outcome) -> float:
    """Return the end of the interval on the better side, so that larger is better."""
    assert outcome.gain is not None
    return max(_oriented(findings, outcome.gain.low), _oriented(findings, outcome.gain.high))
