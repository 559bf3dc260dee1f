"""Units share rows: a plan of which widths each row holds, and where the units of some rows stand."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxplm.data.batch import EncoderBatch
from jaxplm.data.bin_packing import fill_rows, ramp
from jaxplm.data.labelled.encodings import Encoded


def default_max_units(seq_len: int) -> int:
    """Return the bound on the units of a row where none is given: texts of eight tokens still fill their rows."""
    return max(32, seq_len // 8)


@dataclass(frozen=True, eq=False)
class UnitPlan:
    """Which units share each row, by their ranks in the order of width: row r holds ranks[row_ptr[r]:row_ptr[r + 1]].

    Units of equal width may change places and the plan still fits. This is how each epoch has new rows, and as many.

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
    def max_segments(self) -> int:
        """S, the largest number of units in a row."""
        return int(np.diff(self.row_ptr).max())


def plan_units(lengths: np.ndarray, seq_len: int, max_units: int | None = None) -> UnitPlan:
    """Pack units into rows, best fit decreasing (`bin_packing.best_fit`), with no more than `max_units` in any row.

    Args:
      lengths: [n] tokens of each unit, at most seq_len, n at least 1.
      seq_len: L.
      max_units: a bound on S: a unit takes at least 1 / max_units of a row; `default_max_units` if None.
    """
    max_units = max_units or default_max_units(seq_len)
    widths = np.maximum(lengths, -(-seq_len // max_units))
    counts = np.bincount(widths, minlength=seq_len + 1)
    return UnitPlan(widths, *fill_rows(counts, seq_len))


def units_of_rows(plan: UnitPlan, by_width: np.ndarray, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the units of rows.

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


class PlacedRows:
    """B rows, and where the units of a set and their tokens stand in them.

    Args:
      offsets: [n + 1] of the set, see `Encoded`.
      counts: [B] units in each row, 0 for an empty one.
      units: [P] the units, row after row.
      seq_len: L, enough for the units of any row.
      max_segments: S, at least the largest count.

    Attributes:
      units: [P] as given.
      begin: [P] int64, where each starts in its row.
    """

    def __init__(self, offsets: np.ndarray, counts: np.ndarray, units: np.ndarray, seq_len: int, max_segments: int) -> None:
        self.units = units
        self._shape, self._max_segments = (len(counts), seq_len), max_segments
        self._lengths = offsets[units + 1] - offsets[units]
        ends = np.cumsum(self._lengths)
        self._row = np.repeat(np.arange(len(counts)), counts)
        self._segment = ramp(counts, np.cumsum(counts) - counts)  # [P] in its row, from 0
        row_begin = np.concatenate([[0], ends])[np.cumsum(counts) - counts]
        self.begin = ends - self._lengths - row_begin[self._row]
        self._place = ramp(self._lengths, ends - self._lengths)  # [t] of each token in its unit
        self._source = self._place + np.repeat(offsets[units], self._lengths)  # [t] in the set's T tokens
        self._target = self._place + np.repeat(self._row * seq_len + self.begin, self._lengths)  # [t] in the B × L places

    def of_tokens(self, values: np.ndarray, fill: int = 0) -> np.ndarray:
        """Return [B, L, ...] from [T, ...] values of the set's tokens; `fill` where a place holds no token."""
        return self._spread(values[self._source], fill)

    def of_units(self, values: np.ndarray) -> np.ndarray:
        """Return [B, S, ...] from [n, ...] values of the set's units; 0 in unused segments."""
        return self.in_segments(values[self.units])

    def in_segments(self, values: np.ndarray) -> np.ndarray:
        """Return [B, S, ...] from [P, ...] values of the units here; 0 in unused segments."""
        out = np.zeros((self._shape[0], self._max_segments, *values.shape[1:]), values.dtype)
        out[self._row, self._segment] = values
        return out

    @cached_property
    def segment_ids(self) -> np.ndarray:
        """[B, L] int32: 0 for padding, 1, 2, ... for the units that share the row."""
        return self._spread(np.repeat(self._segment + 1, self._lengths).astype(np.int32), 0)

    @property
    def position_ids(self) -> np.ndarray:
        """[B, L] int32: places of tokens in their unit, from 0."""
        return self._spread(self._place.astype(np.int32), 0)

    def _spread(self, values: np.ndarray, fill: int) -> np.ndarray:
        out = np.full((self._shape[0] * self._shape[1], *values.shape[1:]), fill, values.dtype)
        out[self._target] = values
        return out.reshape(*self._shape, *values.shape[1:])


def encoder_batch(encoded: Encoded, pad_id: int, rows: PlacedRows) -> EncoderBatch:
    """Return what the encoder reads of these rows.

    Args:
      encoded: the set that the units are of.
      pad_id: token of the places that no unit takes.
    """
    return EncoderBatch(
        input_ids=rows.of_tokens(encoded.ids, pad_id),
        segment_ids=rows.segment_ids,
        position_ids=rows.position_ids,
        token_types=rows.of_tokens(encoded.types).astype(np.int32),
        first=rows.in_segments(rows.begin.astype(np.int32)),
    )
