"""What the statistics say about a comparison: gains over `base`, and the ways that tie with the best."""

import dataclasses
import math

from jaxplm.reporting.comparison.comparison import Comparison, Way
from jaxplm.reporting.comparison.findings import BASE, NO_STANDING, Gain, Key, Standing
from jaxplm.scores.row_parts import RowParts
from jaxplm.scores.significance import compare_with_base, not_distinguishable_from_best, resample

_Runs = dict[int, RowParts]  # of one way, by seed


def standing(comparison: Comparison) -> Standing:
    """Return the statistics of a comparison.

    A way is compared with `base` of its own method, and p-values are corrected for the ways of a method. The best way
    is looked for among all methods. Ways without parts of their test rows (a failed one, no test set) have no statistics.
    """
    found = {(way.name, way.method): runs for way in comparison.ways if (runs := _runs(way))}
    if not found:
        return NO_STANDING
    names = {str(i): key for i, key in enumerate(found)}
    sample = resample(dict(zip(names, found.values(), strict=True)))
    gains: dict[Key, Gain] = {}
    for base, (name, method) in names.items():
        if name != BASE:
            continue
        of_method = {one: scores for one, scores in sample.scores.items() if names[one][1] == method}
        for one in compare_with_base(dataclasses.replace(sample, scores=of_method), base):
            if math.isfinite(one.mean):
                gains[names[one.way]] = Gain(one.mean, one.low, one.high, one.p, one.p_holm)
    best, others = not_distinguishable_from_best(sample, higher_is_better=comparison.higher_is_better)
    tied = frozenset(names[one] for one in (best, *others) if one)
    return Standing(gains, tied, len(next(iter(next(iter(found.values())).values()))))


def _runs(way: Way) -> _Runs:
    return {} if way.failure else {run.seed: run.parts for run in way.runs if run.parts is not None}
