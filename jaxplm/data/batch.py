"""What the data layer hands to the step."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """One batch of packed rows with masked positions; NumPy on the host, `jax.Array` on the device.

    B rows of L tokens; at most K masked positions per row, so that shapes never change. Unused slots of
    the last three hold position 0, label 0, weight 0.
    """

    input_ids: Any  # [B, L] int32, masks applied
    segment_ids: Any  # [B, L] int32: 0 = padding, 1, 2, ... = the texts that share the row
    position_ids: Any  # [B, L] int32, restarting at 0 with every text
    mlm_positions: Any  # [B, K] int32, where the head looks
    mlm_labels: Any  # [B, K] int32, the original tokens there
    mlm_weights: Any  # [B, K] float32, 1 for a masked position, 0 for an unused slot


class PairBatch(NamedTuple):
    """A `Batch` whose rows hold one pair of segments each, [CLS] A [SEP] B [SEP], and whether B belongs behind A."""

    input_ids: Any  # [B, L] int32, masks applied
    segment_ids: Any  # [B, L] int32: 0 = padding, 1 = the pair
    position_ids: Any  # [B, L] int32
    mlm_positions: Any  # [B, K] int32
    mlm_labels: Any  # [B, K] int32
    mlm_weights: Any  # [B, K] float32
    token_types: Any  # [B, L] int32: 0 in [CLS] A [SEP], 1 in B [SEP]
    pair_labels: Any  # [B] int32: 0 = B follows A in a text, 1 = it does not
    pair_weights: Any  # [B] float32: 1 for a pair, 0 for an empty row


class EncoderBatch(NamedTuple):
    """What the encoder reads of one batch of texts that share rows; NumPy on the host, `jax.Array` on the device.

    A unit is what the encoder reads at once: a text or a pair with its special tokens, or one window of a long one.
    B rows of L tokens; at most S units per row. Unit s of a row is segment s + 1. Unused segments have `first` 0.
    """

    input_ids: Any  # [B, L] int32
    segment_ids: Any  # [B, L] int32: 0 = padding, 1, 2, ... = the units that share the row
    position_ids: Any  # [B, L] int32, restarting at 0 with every unit
    token_types: Any  # [B, L] int32: 1 in the second text of a pair where the tokenizer says so
    first: Any  # [B, S] int32: where each unit starts, which is its [CLS]


class TaskBatch(NamedTuple):
    """One batch of labelled texts that share rows: an `EncoderBatch`, and what is to be learned from it.

    `labels` are [B, S, ...] for the units or [B, L, ...] for their tokens, as the loss of the kind of task reads them; see
    `jaxplm.data.labelled.targets`. `weights` are float32 [B, S] or [B, L]: 1 for what counts, 0 for what does not.
    """

    input_ids: Any  # [B, L] int32
    segment_ids: Any  # [B, L] int32
    position_ids: Any  # [B, L] int32
    token_types: Any  # [B, L] int32
    first: Any  # [B, S] int32
    labels: Any
    weights: Any


class FeatureBatch(NamedTuple):
    """The same units as vectors that a frozen encoder gave: what a head alone is trained on."""

    features: Any  # [B, S, M, D] per unit, or [B, L, M, D] per token; float32
    segment_ids: Any  # [B, L] int32
    labels: Any  # as in TaskBatch
    weights: Any


HostBatch = Batch | PairBatch | TaskBatch | FeatureBatch  # what a job's data make, of this process's rows
