"""Labelled units as batches of fixed shapes: pure functions of the step's number, or each unit once in a fixed order."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from jaxplm.data import rng
from jaxplm.data.batch import TaskBatch
from jaxplm.data.labelled.unit_rows import UnitPlan, build_rows, plan_units, units_of_rows
from jaxplm.data.labelled.units import Units
from jaxplm.data.order import RowOrder
from jaxplm.errors import UserError

# Which rows of a batch of so many this process makes; all of them where None is given.
Slots = Callable[[int], np.ndarray]

# Units a step may be so much more or less than asked for before rows are filled less to come nearer.
_TOLERANCE = 0.1


def default_max_units(seq_len: int) -> int:
    """The bound on S where none is given: texts of eight tokens still fill their rows."""
    return max(32, seq_len // 8)


class TaskBatches:
    """Training batches, packed anew in every epoch: each unit once an epoch, with new neighbours in a new order.

    A step has R rows, so many that they hold `batch_size` units on average: learning rates and epochs mean what they
    mean without packing. The rows of an epoch that do not fill a step go on with those of the next.

    Args:
      units: what is trained on.
      batch_size: units a step over all processes, on average.
      seq_len: L, at least the longest unit.
      pad_id: the tokenizer's.
      seed: of the order, and of what shares a row.
      row_multiple: R divides by it (devices, parts of a step).
      slots: see `Slots`.
      max_units: bound on the units in a row; `default_max_units` if None.

    Attributes:
      rows: packed rows of an epoch.
      rows_per_step: R.
      units_per_step: mean number of units in a step.
      steps_per_epoch: rows / R, seldom a whole number.
      real_tokens: tokens of an epoch that are not padding.
      fill: their share of all places.
      slots: S, the largest number of units in a row of any epoch.

    Raises:
      UserError: no units.
      ValueError: a unit is longer than `seq_len`.
    """

    def __init__(self, units: Units, batch_size: int, seq_len: int, *, pad_id: int, seed: int, row_multiple: int = 1,
                 slots: Slots | None = None, max_units: int | None = None) -> None:
        _check(units, seq_len)
        self._units, self._seq_len, self._pad_id, self._seed = units, seq_len, pad_id, seed
        plan, self.rows_per_step = _fit(units.lengths, seq_len, batch_size, row_multiple, max_units or default_max_units(seq_len))
        self._plan = plan
        self._order = RowOrder(seed, plan.rows)
        self._mine = np.arange(self.rows_per_step) if slots is None else np.asarray(slots(self.rows_per_step), np.int64)
        self.rows, self.slots = plan.rows, plan.slots
        self.units_per_step = self.rows_per_step * len(units) / plan.rows
        self.steps_per_epoch = plan.rows / self.rows_per_step
        self.real_tokens = int(units.offsets[-1])
        self.fill = self.real_tokens / (plan.rows * seq_len)
        self._by_width = functools.lru_cache(maxsize=3)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """[n] units by width, those of equal width in an order of this epoch."""
        bits = rng.fold(rng.key(self._seed, epoch), np.arange(len(self._units)))
        return np.lexsort((bits, self._plan.widths))

    def units_of(self, step: int) -> np.ndarray:
        """[R, S] int64: the units in all rows of a step, those of other processes too; -1 in unused slots."""
        return _in_slots(*self._chosen(step, np.arange(self.rows_per_step)), self.slots)

    def _chosen(self, step: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        samples = step * self.rows_per_step + places
        row_ids, epochs = self._order(samples), samples // self.rows
        counts = self._plan.row_ptr[row_ids + 1] - self._plan.row_ptr[row_ids]
        # A step touches two epochs at most, unless it is longer than one.
        chosen = np.empty(int(counts.sum()), np.int64)
        of_epoch = np.repeat(epochs, counts)
        for epoch in np.unique(epochs).tolist():
            chosen[of_epoch == epoch] = units_of_rows(self._plan, self._by_width(epoch), row_ids[epochs == epoch])[1]
        return counts, chosen

    def batch(self, step: int) -> TaskBatch:
        """The batch of a step, counted from 0: always the same for the same number."""
        return build_rows(self._units, *self._chosen(step, self._mine), self._seq_len, self.slots, self._pad_id)


class FixedTaskBatches:
    """Every unit once, in a fixed order: for evaluation, prediction and the vectors of a frozen encoder.

    Args:
      units: those to go through; may be unlabelled.
      rows_per_batch: B, over all processes; the last batch is filled with empty rows.
      seq_len, pad_id, slots, max_units: see `TaskBatches`.

    Raises:
      UserError: no units.
      ValueError: a unit is longer than `seq_len`.
    """

    def __init__(self, units: Units, rows_per_batch: int, seq_len: int, *, pad_id: int, slots: Slots | None = None,
                 max_units: int | None = None) -> None:
        _check(units, seq_len)
        self._units, self._seq_len, self._pad_id = units, seq_len, pad_id
        self._plan = plan_units(units.lengths, seq_len, max_units or default_max_units(seq_len))
        self._by_width = np.argsort(self._plan.widths, kind="stable")
        self._mine = np.arange(rows_per_batch) if slots is None else np.asarray(slots(rows_per_batch), np.int64)
        self.rows, self.rows_per_batch, self.slots = self._plan.rows, rows_per_batch, self._plan.slots
        self.real_tokens = int(units.offsets[-1])
        self.fill = self.real_tokens / (self.rows * seq_len)

    def __len__(self) -> int:
        return -(-self.rows // self.rows_per_batch)

    def __iter__(self) -> Iterator[TaskBatch]:
        return map(self.batch, range(len(self)))

    def _chosen(self, index: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = index * self.rows_per_batch + places
        return units_of_rows(self._plan, self._by_width, np.where(rows < self.rows, rows, -1))

    def batch(self, index: int) -> TaskBatch:
        """Batch `index` of `len(self)`: the rows of this process."""
        return build_rows(self._units, *self._chosen(index, self._mine), self._seq_len, self.slots, self._pad_id)

    def units_of(self, index: int) -> np.ndarray:
        """[B, S] int64: the units in all rows of a batch, those of other processes too; -1 in unused slots."""
        return _in_slots(*self._chosen(index, np.arange(self.rows_per_batch)), self.slots)


def _check(units: Units, seq_len: int) -> None:
    if not len(units):
        raise UserError("the data hold no text")
    if units.lengths.max() > seq_len:
        raise ValueError(f"a unit of {units.lengths.max()} tokens does not fit into rows of {seq_len}")


def _in_slots(counts: np.ndarray, chosen: np.ndarray, slots: int) -> np.ndarray:
    out = np.full((len(counts), slots), -1, np.int64)
    out[np.arange(slots) < counts[:, None]] = chosen
    return out


def _fit(lengths: np.ndarray, seq_len: int, batch_size: int, row_multiple: int, max_units: int) -> tuple[UnitPlan, int]:
    """A plan, and R: as many full rows as hold `batch_size` units, or more rows that hold fewer units each.

    The latter where no multiple of `row_multiple` full rows comes near: eight devices and 32 units of which sixteen
    fill a row. A step of 128 would be another recipe, so each row takes four.
    """
    plan = plan_units(lengths, seq_len, max_units)
    wanted = batch_size * plan.rows / len(lengths) / row_multiple
    rows = max(1, round(wanted)) * row_multiple
    if abs(rows / (wanted * row_multiple) - 1) <= _TOLERANCE:
        return plan, rows
    rows = int(np.ceil(wanted)) * row_multiple
    low, high = 1, max_units  # the largest bound on units a row that does not exceed batch_size on average
    while low < high:
        middle = (low + high + 1) // 2
        if rows * len(lengths) / plan_units(lengths, seq_len, middle).rows <= batch_size * (1 + _TOLERANCE / 2):
            low = middle
        else:
            high = middle - 1
    return plan_units(lengths, seq_len, low), rows
