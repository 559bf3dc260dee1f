"""What the statistics say about a comparison: gains over `base` with intervals and p-values, and the ways that tie with the best."""

import math

from jaxplm.reporting.comparison.comparison import Comparison, Way
from jaxplm.reporting.comparison.findings import BASE, NO_STANDING, Gain, Key, Standing
from jaxplm.scores.row_parts import RowParts
from jaxplm.scores.significance import compare_with_base, not_distinguishable_from_best

_Runs = dict[int, RowParts]  # of one way, by seed


def standing(comparison: Comparison) -> Standing:
    """Return the statistics of a comparison.

    A way is compared with `base` of its own method, and p-values are corrected for the ways of a method. The best way is looked for
    among all methods. Ways without parts of their test rows (a failed one, no test set) have no statistics.
    """
    found = {(way.name, way.method): runs for way in comparison.ways if (runs := _runs(way))}
    if not found:
        return NO_STANDING
    gains: dict[Key, Gain] = {}
    for method in dict.fromkeys(method for _, method in found):
        ways = {name: runs for (name, of), runs in found.items() if of == method}
        if BASE not in ways:
            continue
        for one in compare_with_base(ways, BASE):
            if math.isfinite(one.mean):
                gains[one.way, method] = Gain(one.mean, one.low, one.high, one.p, one.p_holm)
    numbered = {str(i): runs for i, runs in enumerate(found.values())}
    best, others = not_distinguishable_from_best(numbered, higher_is_better=comparison.higher_is_better)
    keys = list(found)
    tied = frozenset(keys[int(i)] for i in (best, *others) if i)
    return Standing(gains, tied, len(next(iter(next(iter(found.values())).values()))))


def _runs(way: Way) -> _Runs:
    return {} if way.failure else {run.seed: run.parts for run in way.runs if run.parts is not None}
