"""What the data layer hands to the step."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """One batch of packed rows with masked positions; NumPy on the host, `jax.Array` on the device.

    B rows of L tokens; at most K masked positions a row, so that shapes never change. Unused slots of
    the last three hold position 0, label 0, weight 0.
    """

    input_ids: Any  # [B, L] int32, masks applied
    segment_ids: Any  # [B, L] int32: 0 = padding, 1, 2, ... = the texts that share the row
    position_ids: Any  # [B, L] int32, restarting at 0 with every text
    mlm_positions: Any  # [B, K] int32, where the head looks
    mlm_labels: Any  # [B, K] int32, the original tokens there
    mlm_weights: Any  # [B, K] float32, 1 for a masked position, 0 for an unused slot
