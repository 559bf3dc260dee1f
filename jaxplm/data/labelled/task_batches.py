"""Which units share the rows of each batch: a pure function of the step's number, or each unit once in a fixed order.

Rows (`ShuffledRows`, `FixedRows`) say where units stand. What the rows hold is made by a function of them: `encoder_batch`,
`task_batch`, or the vectors of a frozen encoder. `TrainBatches` and `FixedBatches` put the two together.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxplm.data import rng
from jaxplm.data.batch import TaskBatch
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.unit_rows import PlacedRows, UnitPlan, default_max_units, encoder_batch, plan_units, units_of_rows
from jaxplm.data.order import RowOrder
from jaxplm.errors import UserError

# The number of rows of a batch → which of them this process makes.
LocalRows = Callable[[int], np.ndarray]
# Rows → the batch that holds them; its leaves are [rows, ...].
MakeBatch = Callable[[PlacedRows], Any]

# Units per step may be so much more or less than asked for before rows are filled less to come nearer.
_TOLERANCE = 0.1


class ShuffledRows:
    """The rows of training steps, packed again in every epoch: each unit once per epoch, with new neighbours in a new order.

    A step has R rows, so many that they hold `batch_size` units on average: learning rates and epochs mean what they
    mean without packing. A step that the rows of an epoch do not fill takes the first rows of the next epoch.

    Args:
      lengths: [n] tokens of each unit.
      batch_size: units per step over all processes, on average.
      seq_len: L, at least the longest unit.
      seed: of the order, and of which units share a row.
      row_multiple: R divides by it (devices, parts of a step).
      local_rows: see `LocalRows`; None: this process makes all rows.
      max_units: bound on the units in a row; `default_max_units` if None.

    Attributes:
      rows: packed rows per epoch.
      rows_per_step: R.
      units_per_step: mean number of units in a step.
      steps_per_epoch: rows / R, seldom a whole number.
      real_tokens: tokens per epoch that are not padding.
      fill: their share of all places.
      max_segments: S, the largest number of units in a row of any epoch.

    Raises:
      UserError: no units.
      ValueError: a unit is longer than `seq_len`.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seq_len: int, *, seed: int, row_multiple: int = 1,
                 local_rows: LocalRows | None = None, max_units: int | None = None) -> None:
        _check(lengths, seq_len)
        self._offsets, self._seq_len, self._seed = _offsets(lengths), seq_len, seed
        plan, self.rows_per_step = _fit(lengths, seq_len, batch_size, row_multiple, max_units or default_max_units(seq_len))
        self._plan = plan
        self._order = RowOrder(seed, plan.rows)
        self._local = _local(self.rows_per_step, local_rows)
        self.rows = plan.rows
        self.max_segments = plan.max_segments
        self.units_per_step = self.rows_per_step * len(lengths) / plan.rows
        self.steps_per_epoch = plan.rows / self.rows_per_step
        self.real_tokens = int(self._offsets[-1])
        self.fill = self.real_tokens / (plan.rows * seq_len)
        self._by_width = functools.lru_cache(maxsize=3)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """[n] units by width, those of equal width in an order of this epoch."""
        bits = rng.fold(rng.key(self._seed, epoch), np.arange(len(self._plan.widths)))
        return np.lexsort((bits, self._plan.widths))

    def _chosen(self, step: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        samples = step * self.rows_per_step + places
        row_ids, epochs = self._order(samples), samples // self.rows
        counts = self._plan.row_ptr[row_ids + 1] - self._plan.row_ptr[row_ids]
        # A step has rows of two epochs at most, unless it is longer than one.
        chosen = np.empty(int(counts.sum()), np.int64)
        of_epoch = np.repeat(epochs, counts)
        for epoch in np.unique(epochs).tolist():
            chosen[of_epoch == epoch] = units_of_rows(self._plan, self._by_width(epoch), row_ids[epochs == epoch])[1]
        return counts, chosen

    def placed(self, step: int) -> PlacedRows:
        """Return this process's rows of a step, counted from 0: always the same for the same number."""
        return PlacedRows(self._offsets, *self._chosen(step, self._local), self._seq_len, self.max_segments)

    def units_of(self, step: int) -> np.ndarray:
        """Return [R, S] int64: the units in all rows of a step, those of other processes too; -1 in unused segments."""
        return _in_segments(*self._chosen(step, np.arange(self.rows_per_step)), self.max_segments)


class FixedRows:
    """Rows that hold every unit once, in a fixed order: for evaluation, prediction and the vectors of a frozen encoder.

    Args:
      lengths: [n] tokens of each unit.
      rows_per_batch: B, over all processes; the last batch is filled with empty rows.
      seq_len, local_rows: see `ShuffledRows`.
      plan: of these units; `plan_units` makes it if None.
      max_segments: S, so that batches of several sets have one shape; the plan's own if None.

    Attributes:
      rows: packed rows, empty ones not counted.
      rows_per_batch, max_segments: as given.
      real_tokens: tokens that are not padding.

    Raises:
      UserError: no units.
      ValueError: a unit is longer than `seq_len`.
    """

    def __init__(self, lengths: np.ndarray, rows_per_batch: int, seq_len: int, *, local_rows: LocalRows | None = None,
                 plan: UnitPlan | None = None, max_segments: int | None = None) -> None:
        _check(lengths, seq_len)
        self._offsets, self._seq_len = _offsets(lengths), seq_len
        self._plan = plan or plan_units(lengths, seq_len)
        self._by_width = np.argsort(self._plan.widths, kind="stable")
        self._local = _local(rows_per_batch, local_rows)
        self.rows = self._plan.rows
        self.rows_per_batch = rows_per_batch
        self.max_segments = max_segments or self._plan.max_segments
        self.real_tokens = int(self._offsets[-1])

    def __len__(self) -> int:
        """The number of batches."""
        return -(-self.rows // self.rows_per_batch)

    def _chosen(self, index: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = index * self.rows_per_batch + places
        return units_of_rows(self._plan, self._by_width, np.where(rows < self.rows, rows, -1))

    def placed(self, index: int) -> PlacedRows:
        """Return this process's rows of batch `index` of `len(self)`."""
        return PlacedRows(self._offsets, *self._chosen(index, self._local), self._seq_len, self.max_segments)

    def units_of(self, index: int) -> np.ndarray:
        """Return [B, S] int64: the units in all rows of a batch, those of other processes too; -1 in unused segments."""
        return _in_segments(*self._chosen(index, np.arange(self.rows_per_batch)), self.max_segments)


def fixed_rows(sets: Mapping[str, np.ndarray], rows_per_batch: int, seq_len: int,
               local_rows: LocalRows | None = None) -> dict[str, FixedRows]:
    """Return `FixedRows` of several sets with one shape, so that a step is compiled once for all of them.

    Args:
      sets: {name: [n] tokens of each unit}.
      rows_per_batch, seq_len, local_rows: see `FixedRows`.

    Raises:
      UserError: a set without units.
      ValueError: a unit is longer than `seq_len`.
    """
    for lengths in sets.values():
        _check(lengths, seq_len)
    plans = {name: plan_units(lengths, seq_len) for name, lengths in sets.items()}
    most = max(plan.max_segments for plan in plans.values())
    return {name: FixedRows(lengths, rows_per_batch, seq_len, local_rows=local_rows, plan=plans[name], max_segments=most)
            for name, lengths in sets.items()}


def task_batch(encoded: Encoded, targets: Targets, pad_id: int, rows: PlacedRows) -> TaskBatch:
    """Return what the encoder reads of these rows, and what is to be learned from them; arguments as in `encoder_batch`."""
    return TaskBatch(*encoder_batch(encoded, pad_id, rows), *targets.place(rows))


class TrainBatches:
    """The batches of training steps, each a pure function of the step's number.

    Args:
      rows: which units each step has, and where.
      make: what a batch holds.
    """

    def __init__(self, rows: ShuffledRows, make: MakeBatch) -> None:
        self.rows, self._make = rows, make

    @property
    def steps_per_epoch(self) -> float:
        return self.rows.steps_per_epoch

    def batch(self, step: int) -> Any:
        """Return this process's part of the batch of a step, counted from 0."""
        return self._make(self.rows.placed(step))


class FixedBatches:
    """The batches of a set, with every unit once; arguments as in `TrainBatches`."""

    def __init__(self, rows: FixedRows, make: MakeBatch) -> None:
        self.rows, self._make = rows, make

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return map(self.batch, range(len(self)))

    def batch(self, index: int) -> Any:
        """Return this process's part of batch `index` of `len(self)`."""
        return self._make(self.rows.placed(index))

    def units_of(self, index: int) -> np.ndarray:
        """Return [B, S] int64; see `FixedRows.units_of`."""
        return self.rows.units_of(index)


def _check(lengths: np.ndarray, seq_len: int) -> None:
    if not len(lengths):
        raise UserError("the data hold no text")
    if lengths.max() > seq_len:
        raise ValueError(f"a unit of {lengths.max()} tokens does not fit into rows of {seq_len}")


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _local(rows: int, local_rows: LocalRows | None) -> np.ndarray:
    return np.arange(rows) if local_rows is None else np.asarray(local_rows(rows), np.int64)


def _in_segments(counts: np.ndarray, chosen: np.ndarray, max_segments: int) -> np.ndarray:
    out = np.full((len(counts), max_segments), -1, np.int64)
    out[np.arange(max_segments) < counts[:, None]] = chosen
    return out


def _fit(lengths: np.ndarray, seq_len: int, batch_size: int, row_multiple: int, max_units: int) -> tuple[UnitPlan, int]:
    """Return a plan, and R: as many full rows as hold `batch_size` units, or more rows that hold fewer units each.

    The latter where no multiple of `row_multiple` full rows comes near: with eight devices and 32 units per step, of which
    sixteen fill a row, a step of eight full rows would have 128 units, which is another recipe. Each row takes four instead.
    """
    plan = plan_units(lengths, seq_len, max_units)
    wanted = batch_size * plan.rows / len(lengths) / row_multiple
    rows = max(1, round(wanted)) * row_multiple
    if abs(rows / (wanted * row_multiple) - 1) <= _TOLERANCE:
        return plan, rows
    rows = int(np.ceil(wanted)) * row_multiple
    low, high = 1, max_units  # the largest bound on units per row that does not exceed batch_size on average
    while low < high:
        middle = (low + high + 1) // 2
        if rows * len(lengths) / plan_units(lengths, seq_len, middle).rows <= batch_size * (1 + _TOLERANCE / 2):
            low = middle
        else:
            high = middle - 1
    return plan_units(lengths, seq_len, low), rows
