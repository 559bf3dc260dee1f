"""The order of the rows, and batches as pure functions of the step's number.

Nothing here has a state to save: step 12,345 can be made without the steps before it, by any process, for
any part of its rows.
"""

from collections.abc import Iterator

import numpy as np

from jaxplm.data import rng
from jaxplm.data.batch import Batch, PairBatch
from jaxplm.data.mlm.mask import capacity, mask_batch
from jaxplm.data.mlm.pack import RowPlan, Rows, SpecialIds, TokenArrays, gather
from jaxplm.data.mlm.schedule import MaskRate
from jaxplm.data.mlm.sentence_pairs import PairPlan, Pairs, gather_pairs
from jaxplm.errors import UserError


class RowOrder:
    """Every row once an epoch, in an order that is new in each."""

    def __init__(self, seed: int, rows: int) -> None:
        self.seed, self.rows = seed, rows

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The rows [b] of these samples [b], int64, counted from the start of the run over all epochs."""
        epoch, place = np.divmod(np.asarray(samples, np.int64), self.rows)
        return rng.permute(place, self.rows, rng.fold(rng.key(self.seed), epoch))


class MlmBatches:
    """Training batches for masked language modelling: rows in a new order and with new masks in every epoch.

    Args:
        store: the tokenized texts.
        plan: their rows; of a `PairPlan`, pairs of segments that are cut and matched anew for every step.
        special: ids of the special tokens.
        random_ids: [R] ids that random replacements are drawn from.
        batch_size: B, rows a step over all processes.
        seq_len: L, as in the plan.
        mask_rate: share of the maskable tokens of a row, one for all steps or by the step.
        whole_word: mask whole words.
        seed: of the order and of the masks.
        slots: which of the B rows of a step to make, in this order; all of them when None.
        prefer_from: masks fall on tokens of this id and above first, see `jaxplm.data.mlm.mask`; None prefers none.
        first_step: where the order of the rows begins, if these batches are for the steps from this one on.

    Raises:
        UserError: there are no rows.
    """

    def __init__(
        self,
        store: TokenArrays,
        plan: RowPlan | PairPlan,
        special: SpecialIds,
        random_ids: np.ndarray,
        *,
        batch_size: int,
        seq_len: int,
        mask_rate: float | MaskRate,
        whole_word: bool,
        seed: int,
        slots: np.ndarray | None = None,
        prefer_from: int | None = None,
        first_step: int = 0,
    ) -> None:
        if not plan.rows:
            raise UserError("the training data holds no tokens")
        if seq_len != plan.seq_len:
            raise ValueError(f"rows of {seq_len} tokens from a plan of {plan.seq_len}")
        self._rate = mask_rate if isinstance(mask_rate, MaskRate) else MaskRate(mask_rate, mask_rate, 1)
        self._make = _Maker(store, plan, special, random_ids, self._rate.highest, whole_word, prefer_from)
        self._order, self._first_step = RowOrder(seed, plan.rows), first_step
        self._seed = seed
        self._batch_size = batch_size
        self._slots = np.arange(batch_size) if slots is None else np.asarray(slots, np.int64)
        self.rows = plan.rows
        self.real_tokens = plan.real_tokens  # of one epoch
        self.max_segments_per_row = plan.max_segments
        self.steps_per_epoch = plan.rows / batch_size

    def rows_of_step(self, step: int) -> np.ndarray:
        """[slots] int64: the rows of the plan that this process makes for a step."""
        return self._order((step - self._first_step) * self._batch_size + self._slots)

    def batch(self, step: int) -> Batch | PairBatch:
        """The batch of a step, counted from 0: always the same for the same number."""
        return self._make(self.rows_of_step(step), self._rate(step), key=(self._seed, step), row_index=self._slots)

    def unmasked(self, step: int) -> Rows:
        """The rows of a step as they are before masking: to look at, or to check the masks against."""
        return self._make.rows(self.rows_of_step(step), (self._seed, step), self._slots)[0]


class FixedMaskBatches:
    """Evaluation batches: masks that depend on nothing but the evaluation's seed and the row.

    So two models, two runs or two batch sizes are measured on the same guesses. Rows come in a seeded order;
    the last batch is filled with empty rows (padding only, weights 0). Can be iterated any number of times.

    Args:
        store, plan, special, random_ids, seq_len, mask_rate, whole_word, slots: see `MlmBatches`.
        batch_size: B, rows a batch over all processes.
        eval_seed: of the masks, and of which rows are used when there are more than `max_rows`.
        max_rows: use a random sample of so many rows; all when None.

    Raises:
        UserError: there are no rows.
    """

    def __init__(
        self,
        store: TokenArrays,
        plan: RowPlan | PairPlan,
        special: SpecialIds,
        random_ids: np.ndarray,
        *,
        batch_size: int,
        seq_len: int,
        mask_rate: float,
        whole_word: bool,
        eval_seed: int = 0,
        max_rows: int | None = None,
        slots: np.ndarray | None = None,
    ) -> None:
        if not plan.rows:
            raise UserError("the evaluation data holds no tokens")
        if seq_len != plan.seq_len:
            raise ValueError(f"rows of {seq_len} tokens from a plan of {plan.seq_len}")
        self._make = _Maker(store, plan, special, random_ids, mask_rate, whole_word, None)
        self._rate, self._seed = mask_rate, eval_seed
        self.rows = plan.rows if max_rows is None else min(plan.rows, max_rows)
        self._row_ids = RowOrder(eval_seed, plan.rows)(np.arange(self.rows))
        self._batch_size = batch_size
        self._slots = np.arange(batch_size) if slots is None else np.asarray(slots, np.int64)

    def __len__(self) -> int:
        return -(-self.rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch | PairBatch]:
        return map(self.batch, range(len(self)))

    def batch(self, index: int) -> Batch | PairBatch:
        """Batch `index` of `len(self)`."""
        samples = index * self._batch_size + self._slots
        real = samples < self.rows
        rows = self._row_ids[samples[real]]
        full = self._make(rows, self._rate, key=(self._seed,), row_index=rows)
        if real.all():
            return full
        return type(full)(*(_spread(a, real, fill) for a, fill in zip(full, self._make.empty, strict=True)))


class _Maker:
    """Rows of the plan to a masked batch; what training and evaluation share."""

    def __init__(
        self,
        store: TokenArrays,
        plan: RowPlan | PairPlan,
        special: SpecialIds,
        random_ids: np.ndarray,
        highest_rate: float,
        whole_word: bool,
        prefer_from: int | None,
    ) -> None:
        self._store, self._plan, self._special = store, plan, special
        self._random_ids = np.asarray(random_ids, np.int32)
        self._whole_word, self._prefer_from = whole_word, prefer_from
        self._capacity = capacity(highest_rate, plan.seq_len)
        # What an empty row is filled with.
        self.empty = Batch(special.pad, 0, 0, 0, 0, 0) if isinstance(plan, RowPlan) else PairBatch(special.pad, *[0] * 8)

    def rows(self, row_ids: np.ndarray, key: tuple[int, ...], row_index: np.ndarray) -> tuple[Rows, Pairs | None]:
        """The rows before masking; `key` and `row_index` matter to pairs alone."""
        if isinstance(self._plan, PairPlan):
            return gather_pairs(self._store, self._plan, row_ids, self._special, key=key, row_index=row_index)
        return gather(self._store, self._plan, row_ids, self._special), None

    def __call__(
        self, row_ids: np.ndarray, rate: float, *, key: tuple[int, ...], row_index: np.ndarray
    ) -> Batch | PairBatch:
        rows, pairs = self.rows(row_ids, key, row_index)
        masked = mask_batch(
            rows.input_ids,
            rows.maskable,
            rows.word_starts if self._whole_word else None,
            rate=rate,
            capacity=self._capacity,
            mask_id=self._special.mask,
            random_ids=self._random_ids,
            key=key,
            row_index=row_index,
            prefer_from=self._prefer_from,
        )
        batch = Batch(
            masked.input_ids,
            rows.segment_ids,
            rows.position_ids,
            masked.positions,
            masked.labels,
            masked.weights,
        )
        if pairs is None:
            return batch
        return PairBatch(*batch, pairs.token_types, pairs.labels, np.ones(len(row_ids), np.float32))


def _spread(rows: np.ndarray, real: np.ndarray, fill: int) -> np.ndarray:
    """Puts rows where `real` [b] is True, and `fill` everywhere else."""
    out = np.full((len(real), *rows.shape[1:]), fill, rows.dtype)
    out[real] = rows
    return out
