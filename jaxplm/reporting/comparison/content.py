"""What `report.html` and `report.md` share: the sections, the order of the rows, and the contents of cells."""

from collections.abc import Sequence
from typing import Any

from jaxplm.reporting.comparison import wording
from jaxplm.reporting.comparison.findings import Findings, Outcome, scores_of
from jaxplm.reporting.comparison.recommendation import Verdict
from jaxplm.scores.seeds import format_mean_std

TEXT_SETS = ("corpus", "task", "general")  # names of `Vocabularies` that have a translation


def template_values(findings: Findings, verdict: Verdict) -> dict[str, Any]:
    """Return the variables and functions of both templates."""
    comparison = findings.comparison
    has = wording.catalogue("en").__contains__
    parts = {
        "few": any(outcome.way.few for outcome in findings.done),
        "curves": any(run.curve for outcome in findings.done for run in outcome.way.runs),
        "encoder_curves": any(len(encoder.curve) > 1 for encoder in comparison.encoders),
        "rates": any(outcome.way.tried for outcome in findings.outcomes),
    }
    return {
        "findings": findings,
        "comparison": comparison,
        "verdict": verdict,
        "w": wording,
        "parts": parts,
        "ranked": ranked(findings),
        "rows": findings.test_rows or comparison.test_rows,
        "method": wording.Method,
        "phrase": wording.Phrase,
        "has": has,
        "describes": lambda name: has(f"way.{name}"),
        "sizes": sizes(findings),
        "rates": rates(findings),
        "tried": tried,
        "relative": relative,
        "spread": lambda scores: format_mean_std(comparison.metric, scores) if scores else "–",
        "few": lambda outcome, rows: few(findings, outcome, rows),
    }


def contents(findings: Findings, verdict: Verdict) -> list[tuple[str, str]]:
    """Return (anchor, key of the title) of the sections that a page has."""
    values = template_values(findings, verdict)
    parts, comparison = values["parts"], findings.comparison
    listed = (
        ("results", True),
        ("cost", True),
        ("few", parts["few"]),
        ("curves", parts["curves"]),
        ("forgetting", comparison.encoders),
        ("vocabulary", comparison.vocabularies),
        ("rates", parts["rates"]),
        ("commands", True),
        ("settings", comparison.settings or comparison.hardware),
    )
    return [(name, f"section.{name}") for name, there in listed if there]


def ranked(findings: Findings) -> Sequence[Outcome]:
    """Return the rows of the table: the best first, and last those without a score."""
    sign = -1 if findings.comparison.higher_is_better else 1
    return sorted(findings.outcomes, key=lambda one: (not one.scores, sign * one.mean if one.scores else 0.0))


def sizes(findings: Findings) -> list[int]:
    """Return the sizes of the smaller training sets, in rising order."""
    return sorted({rows for outcome in findings.done for rows, _ in outcome.way.few})


def few(findings: Findings, outcome: Outcome, rows: int) -> str:
    """Return mean ± standard deviation of a way on so many labelled rows."""
    metric = findings.comparison.metric
    scores = scores_of(dict(outcome.way.few).get(rows, ()), findings.split, metric)
    return format_mean_std(metric, scores) if scores else "–"


def rates(findings: Findings) -> list[float]:
    """Return all learning rates that were tried, in rising order."""
    return sorted({rate for outcome in findings.outcomes for rate, _ in outcome.way.tried})


def tried(outcome: Outcome, rate: float) -> float | None:
    """Return the validation score of a learning rate; None where it was not tried."""
    return dict(outcome.way.tried).get(rate)


def relative(pair: tuple[float, float]) -> str:
    """Return a change in percent: '+12.3 %'."""
    before, after = pair
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before > 0 else "–"
