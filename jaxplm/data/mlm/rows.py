"""Rows of tokens before and after masking, and the special tokens in them."""

from typing import NamedTuple, Protocol

import numpy as np

from jaxplm.data.batch import Batch, PairBatch
from jaxplm.data.rng import RowDraws


class SpecialIds(NamedTuple):
    """The tokenizer's ids of the tokens that frame, fill and hide."""

    cls: int
    sep: int
    pad: int
    mask: int
    unk: int = -1  # -1: the tokenizer has none


class Masked(NamedTuple):
    """Masked tokens of b rows, and what the head has to predict; see `jaxplm.data.batch.Batch`."""

    input_ids: np.ndarray  # [b, L] int32
    positions: np.ndarray  # [b, K] int32, ascending; 0 where fewer than K are masked
    labels: np.ndarray  # [b, K] int32
    weights: np.ndarray  # [b, K] float32


class Rows(NamedTuple):
    """Rows as they are before masking, each array [b, L]."""

    input_ids: np.ndarray  # int32
    segment_ids: np.ndarray  # int32: 0 = padding, 1, 2, ... = the texts that share the row
    position_ids: np.ndarray  # int32, restarting at 0 with every segment
    word_starts: np.ndarray  # bool: a word, or a part of one that the row's edge cut, starts here
    maskable: np.ndarray  # bool: a token of a text, and none of the special ones

    def with_masks(self, masked: Masked) -> Batch:
        """Return the batch that the model is trained on."""
        return Batch(masked.input_ids, self.segment_ids, self.position_ids, masked.positions, masked.labels, masked.weights)


class PairRows(NamedTuple):
    """Rows of one pair of segments each, [CLS] A [SEP] B [SEP], before masking; each array [b, L] but the last."""

    input_ids: np.ndarray  # int32
    segment_ids: np.ndarray  # int32: 0 = padding, 1 = the pair
    position_ids: np.ndarray  # int32
    word_starts: np.ndarray  # bool, as in `Rows`
    maskable: np.ndarray  # bool, as in `Rows`
    token_types: np.ndarray  # int32: 0 in [CLS] A [SEP] and padding, 1 in B [SEP]
    pair_labels: np.ndarray  # [b] int32: 0 = B follows A in a text, 1 = it does not

    def with_masks(self, masked: Masked) -> PairBatch:
        """Return the batch that the model is trained on."""
        weights = np.ones(len(self.pair_labels), np.float32)
        return PairBatch(masked.input_ids, self.segment_ids, self.position_ids, masked.positions, masked.labels, masked.weights,
                         self.token_types, self.pair_labels, weights)


class Plan(Protocol):
    """Which tokens of a store make up each row: what batches need of `RowPlan` and `PairPlan`."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def seq_len(self) -> int:
        """L, tokens per row."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of the texts, without special tokens."""
        ...

    @property
    def real_tokens(self) -> int:
        """Tokens of all rows that are not padding."""
        ...

    @property
    def fill(self) -> float:
        """Share of the tokens of the rows that are not padding."""
        ...

    @property
    def max_segments(self) -> int:
        """The largest number of segments in a row."""
        ...

    def gather(self, row_ids: np.ndarray, special: SpecialIds, draws: RowDraws) -> Rows | PairRows:
        """Build the rows `row_ids` [b] from the store. `draws` has the random numbers of these rows, for plans that use any."""
        ...
