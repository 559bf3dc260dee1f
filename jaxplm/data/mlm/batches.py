"""Batches of masked language modelling as pure functions of the step's number.

Nothing here has a state to save: step 12,345 can be computed without the steps before it, by any process, for
any part of its rows.
"""

from collections.abc import Iterator

import numpy as np

from jaxplm.data.batch import Batch, PairBatch
from jaxplm.data.mlm.mask import Masking, capacity, mask_rows
from jaxplm.data.mlm.mixture import Mixture
from jaxplm.data.mlm.rows import Plan
from jaxplm.data.order import RowOrder
from jaxplm.data.rng import RowDraws
from jaxplm.errors import UserError


class MlmBatches:
    """Training batches: rows in a new order and with new masks in every epoch.

    Args:
      plan: the rows. Those of a `PairPlan`, pairs of segments, are cut and matched again for every step. A `Mixture`
        has an order of its own.
      masking: what is masked.
      batch_size: B, rows per step over all processes.
      seed: of the order and of the masks.
      local_rows: [b] which of the B rows of a step to build, in this order; all of them when None.
      first_step: where the order of the rows begins, if these batches are for the steps from this one on.

    Raises:
      UserError: there are no rows.
    """

    def __init__(self, plan: Plan, masking: Masking, *, batch_size: int, seed: int, local_rows: np.ndarray | None = None,
                 first_step: int = 0) -> None:
        if not plan.rows:
            raise UserError("the training data holds no tokens")
        self.plan = plan
        self._masking = masking
        self._batch_size = batch_size
        self._seed = seed
        self._order = plan.order(seed) if isinstance(plan, Mixture) else RowOrder(seed, plan.rows)
        self._local_rows = _rows_or_all(local_rows, batch_size)
        self._first_step = first_step

    @property
    def rows(self) -> int:
        """Number of rows in an epoch."""
        return self.plan.rows

    @property
    def real_tokens(self) -> int:
        """Tokens of an epoch that are not padding."""
        return self.plan.real_tokens

    @property
    def max_segments_per_row(self) -> int:
        """The largest number of texts that share a row."""
        return self.plan.max_segments

    @property
    def steps_per_epoch(self) -> float:
        return self.plan.rows / self._batch_size

    def rows_of_step(self, step: int) -> np.ndarray:
        """Return [b] int64: the rows of the plan that this process builds for a step."""
        return self._order((step - self._first_step) * self._batch_size + self._local_rows)

    def draws_of_step(self, step: int) -> RowDraws:
        """Return the random numbers of those rows."""
        return RowDraws((self._seed, step), self._local_rows)

    def batch(self, step: int) -> Batch | PairBatch:
        """Return the batch of a step, counted from 0: always the same for the same number."""
        return masked_batch(self.plan, self._masking, self.rows_of_step(step), step, self.draws_of_step(step))


class FixedMaskBatches:
    """Evaluation batches: masks that depend on nothing but the evaluation's seed and the row.

    So two models, two runs or two batch sizes are measured on the same masked tokens. Rows come in a seeded order;
    the last batch is filled with empty rows (padding only, weights 0). Can be iterated any number of times.

    Args:
      plan, masking, local_rows: see `MlmBatches`. The rate is that of step 0.
      batch_size: B, rows per batch over all processes.
      seed: of the masks, and of which rows are used when there are more than `max_rows`.
      max_rows: use a random sample of `max_rows` rows; all when None.

    Raises:
      UserError: there are no rows.
    """

    def __init__(self, plan: Plan, masking: Masking, *, batch_size: int, seed: int = 0, max_rows: int | None = None,
                 local_rows: np.ndarray | None = None) -> None:
        if not plan.rows:
            raise UserError("the evaluation data holds no tokens")
        self._plan = plan
        self._masking = masking
        self._batch_size = batch_size
        self._seed = seed
        self.rows = plan.rows if max_rows is None else min(plan.rows, max_rows)
        self._row_ids = RowOrder(seed, plan.rows)(np.arange(self.rows))
        self._local_rows = _rows_or_all(local_rows, batch_size)

    def __len__(self) -> int:
        return -(-self.rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch | PairBatch]:
        return map(self.batch, range(len(self)))

    def batch(self, index: int) -> Batch | PairBatch:
        """Return batch `index` of `len(self)`."""
        samples = index * self._batch_size + self._local_rows
        real = samples < self.rows
        row_ids = self._row_ids[samples[real]]
        batch = masked_batch(self._plan, self._masking, row_ids, 0, RowDraws((self._seed,), row_ids))
        return batch if real.all() else _with_empty_rows(batch, real, self._masking.special.pad)


def masked_batch(plan: Plan, masking: Masking, row_ids: np.ndarray, step: int, draws: RowDraws) -> Batch | PairBatch:
    """Build the rows `row_ids` [b] of a plan and mask them at the rate of `step`."""
    rows = plan.gather(row_ids, masking.special, draws)
    masked = mask_rows(rows, masking, masking.rate(step), capacity(masking.rate.highest, plan.seq_len), draws)
    return rows.with_masks(masked)


def _rows_or_all(local_rows: np.ndarray | None, batch_size: int) -> np.ndarray:
    return np.arange(batch_size) if local_rows is None else np.asarray(local_rows, np.int64)


def _with_empty_rows(batch: Batch | PairBatch, real: np.ndarray, pad_id: int) -> Batch | PairBatch:
    """Put the rows of a batch where `real` [b] is True, and rows of padding everywhere else."""
    def spread(rows: np.ndarray, fill: int) -> np.ndarray:
        out = np.full((len(real), *rows.shape[1:]), fill, rows.dtype)
        out[real] = rows
        return out

    fields = {name: spread(rows, pad_id if name == "input_ids" else 0) for name, rows in batch._asdict().items()}
    return batch._replace(**fields)
