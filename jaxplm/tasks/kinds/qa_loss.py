"""Cross-entropy of the first and the last token of an answer (qa)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxplm.tasks.labelled import LabelledTask


class AnswerSpan(LabelledTask):
    """The first and the last token of an answer, among the tokens of each unit (Devlin et al. 2019, section 4.2)."""

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        units = jnp.arange(1, batch.weights.shape[1] + 1, dtype=batch.segment_ids.dtype)
        inside = batch.segment_ids[:, None, :] == units[None, :, None]  # [B, S, L]
        inside = inside | ~inside.any(-1, keepdims=True)  # unused segments: anything finite, weight 0
        total = jnp.zeros(batch.weights.shape, jnp.float32)
        for end in range(2):
            shares = jax.nn.log_softmax(jnp.where(inside, logits[:, None, :, end], -1e9), axis=-1)
            total = total - jnp.take_along_axis(shares, batch.labels[:, :, end, None], axis=-1)[..., 0]
        return total / 2
