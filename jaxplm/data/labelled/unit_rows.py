"""Units share rows: a plan of which widths each row holds, and the rows of a batch from the units."""

from dataclasses import dataclass

import numpy as np

from jaxplm.data.batch import TaskBatch
from jaxplm.data.bin_packing import best_fit, ramp
from jaxplm.data.labelled.units import Units


@dataclass(frozen=True, eq=False)
class UnitPlan:
    """Which units share each row, by their ranks in the order of width: row r holds ranks[row_ptr[r]:row_ptr[r + 1]].

    Units of equal width may change places and the plan still fits: that is how rows are new in every epoch and yet
    as many as before.

    Attributes:
      widths: [n] int64, the room that each unit takes, at least its length.
      ranks: [n] int64, a permutation of range(n): places in the units sorted by width, widest last.
      row_ptr: [rows + 1] int64.
    """

    widths: np.ndarray
    ranks: np.ndarray
    row_ptr: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.row_ptr) - 1

    @property
    def slots(self) -> int:
        """S, the largest number of units in a row."""
        return int(np.diff(self.row_ptr).max())


def plan_units(lengths: np.ndarray, seq_len: int, max_units: int) -> UnitPlan:
    """Best-fit-decreasing packing (see `pack.best_fit`) of units into rows, with no more than `max_units` in any.

    Args:
      lengths: [n] tokens of each unit, at most seq_len, n at least 1.
      seq_len: L.
      max_units: a bound on S: a unit takes at least 1 / max_units of a row.
    """
    widths = np.maximum(lengths, -(-seq_len // max_units))
    counts = np.bincount(widths, minlength=seq_len + 1)
    taken = np.cumsum(counts) - counts  # first unused rank of each width
    ranks = np.empty(len(lengths), np.int64)
    sizes, at = [], 0
    for rows, content in best_fit(counts, seq_len):
        each = sum(repeat for _, repeat in content)
        block = ranks[at : at + rows * each].reshape(rows, each)
        column = 0
        for width, repeat in content:
            begin = taken[width]
            taken[width] += rows * repeat
            block[:, column : column + repeat] = np.arange(begin, taken[width]).reshape(rows, repeat)
            column += repeat
        at += rows * each
        sizes.append(np.full(rows, each, np.int64))
    return UnitPlan(widths, ranks, np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64))


def units_of_rows(plan: UnitPlan, by_width: np.ndarray, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The units of rows.

    Args:
      by_width: [n] units, sorted by width.
      row_ids: [b] rows of the plan; -1 is an empty row.

    Returns:
      counts [b] and units [counts.sum()], row after row.
    """
    first = plan.row_ptr[np.maximum(row_ids, 0)]
    counts = np.where(row_ids < 0, 0, plan.row_ptr[row_ids + 1] - first)
    places = ramp(counts, np.cumsum(counts) - counts) + np.repeat(first, counts)
    return counts, by_width[plan.ranks[places]]


def build_rows(units: Units, counts: np.ndarray, chosen: np.ndarray, seq_len: int, slots: int, pad_id: int) -> TaskBatch:
    """The batch of these rows.

    Args:
      units: what is packed.
      counts: [B] units in each row, 0 for an empty one.
      chosen: [P] units, row after row.
      seq_len: L, enough for the units of any row.
      slots: S, at least the largest count.
      pad_id: token of the places that no unit takes.

    Returns:
      B rows; see `TaskBatch`. Labels that are not known are 0 with weight 0.
    """
    rows = len(counts)
    lengths = units.offsets[chosen + 1] - units.offsets[chosen]
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(rows), counts)
    nth = ramp(counts, np.cumsum(counts) - counts)
    row_begin = np.concatenate([[0], ends])[np.cumsum(counts) - counts]
    begin = ends - lengths - row_begin[row]  # [P] in its row
    place = ramp(lengths, ends - lengths)  # [t] in its unit
    source = place + np.repeat(units.offsets[chosen], lengths)
    target = place + np.repeat(row * seq_len + begin, lengths)

    def spread(values: np.ndarray, fill: int, dtype: type) -> np.ndarray:
        out = np.full(rows * seq_len, fill, dtype)
        out[target] = values
        return out.reshape(rows, seq_len)

    def in_slots(values: np.ndarray) -> np.ndarray:
        out = np.zeros((rows, slots, *values.shape[1:]), values.dtype)
        out[row, nth] = values
        return out

    if units.kind == "tag":
        labels = spread(np.maximum(units.labels[source], 0), 0, np.int32)
        weights = spread(units.weights[source], 0, np.float32)
    else:
        known = units.labels[chosen]
        if units.kind == "classify":
            known = np.maximum(known, 0)
        elif units.kind == "qa":
            known = (known + begin[:, None]).astype(np.int32)
        labels, weights = in_slots(known), in_slots(units.weights[chosen])
    return TaskBatch(
        input_ids=spread(units.ids[source], pad_id, np.int32),
        segment_ids=spread(np.repeat(nth + 1, lengths), 0, np.int32),
        position_ids=spread(place, 0, np.int32),
        token_types=spread(units.token_types[source], 0, np.int32),
        first=in_slots(begin.astype(np.int32)),
        labels=labels,
        weights=weights,
    )
