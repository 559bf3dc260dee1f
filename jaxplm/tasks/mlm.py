"""Masked language modelling (Devlin et al. 2019): cross-entropy at the masked positions.

Shapes: B rows, K masked positions per row, D width, V vocabulary, P chunks of positions.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.data.batch import Batch, PairBatch
from jaxplm.nn import Compute, MaskedLM
from jaxplm.scores.sums import mlm_metrics


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the negative log-likelihood of each label (nats), and whether the label has the highest logit (1 or 0).

    logits [..., V] float32, labels [...] int32 → two float32 arrays [...]. The backward pass keeps only the logits
    and recomputes the softmax from them, so no other array of size V is held in memory.
    """
    return _cross_entropy_forward(logits, labels)[0]


def _cross_entropy_forward(logits, labels):
    highest = logits.max(-1)
    total = jnp.exp(logits - highest[..., None]).sum(-1)
    log_total = jnp.log(total) + highest
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return (log_total - chosen, (chosen >= highest).astype(jnp.float32)), (logits, labels, log_total)


def _cross_entropy_backward(saved, cotangents):
    logits, labels, log_total = saved
    probability = jnp.exp(logits - log_total[..., None])
    # A comparison, not a scatter: it fuses with its neighbours.
    label = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]
    return (cotangents[0][..., None] * (probability - label.astype(jnp.float32)), None)


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def masked_losses(model: MaskedLM, states_BKD: jax.Array, labels_BK: jax.Array, compute: Compute,
                  chunks: int = 1) -> tuple[jax.Array, jax.Array]:
    """Return `cross_entropy` at the masked positions as two float32 arrays [B, K].

    With `chunks` = P > 1, the K positions of each row are projected onto the vocabulary in P chunks, one after the
    other, and the backward pass recomputes the logits of each chunk. Logits [B, K / P, V] are held instead of
    [B, K, V], at the price of about a third more work in the head.
    """
    def losses(chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        states, labels = chunk
        return cross_entropy(model.decoded(states, compute), labels)

    num_masked = labels_BK.shape[1]
    chunks = min(chunks, num_masked)
    if chunks == 1:
        return losses((states_BKD, labels_BK))
    padding = -num_masked % chunks

    def split(x: jax.Array) -> jax.Array:
        """[B, K, ...] → [P, B, K / P, ...]"""
        x = jnp.pad(x, ((0, 0), (0, padding), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(len(x), chunks, -1, *x.shape[2:]).swapaxes(0, 1)

    by_chunk = jax.lax.map(jax.checkpoint(losses), (split(states_BKD), split(labels_BK)))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(len(labels_BK), -1)[:, :num_masked], by_chunk)


class MaskedLanguageModelling:
    """Minimise the mean loss per masked position; implements `jaxplm.tasks.Task`.

    Args:
      characters: [V] characters of each token (`jaxplm.data.corpus.token_text.token_characters`). If given, the loss per
        character is measured too, which is comparable between vocabularies that split a text into different numbers
        of tokens.
      max_segments_per_row: upper bound of the texts per row that the data guarantee; 0 if none is known.
      logit_parts: chunks in which the masked positions are projected onto the vocabulary, see `masked_losses`.
    """

    def __init__(self, characters: np.ndarray | None = None, max_segments_per_row: int = 0, logit_parts: int = 1) -> None:
        self._characters = characters
        self._max_segments_per_row = max_segments_per_row
        self._logit_parts = logit_parts

    def weights_of(self, batch: Batch) -> dict[str, jax.Array]:
        return {"loss": batch.mlm_weights.sum()}

    def sums(self, model: MaskedLM, batch: Batch, *, key: jax.Array | None, compute: Compute) -> dict[str, jax.Array]:
        states_BKD = model.masked_states(batch.input_ids, batch.segment_ids, batch.position_ids, batch.mlm_positions,
                                         key=key, compute=compute, max_segments_per_row=self._max_segments_per_row)
        return self.mlm_sums(model, states_BKD, batch, compute)

    def mlm_sums(self, model: MaskedLM, states_BKD: jax.Array, batch: Batch | PairBatch, compute: Compute) -> dict[str, jax.Array]:
        """Return the sums of the MLM loss, given the hidden states at the masked positions."""
        losses, correct = masked_losses(model, states_BKD, batch.mlm_labels, compute, self._logit_parts)
        sums = {
            "loss": (losses * batch.mlm_weights).sum(),
            "correct": (correct * batch.mlm_weights).sum(),
            "weight": batch.mlm_weights.sum(),
            "tokens": (batch.segment_ids > 0).sum(dtype=jnp.float32),
        }
        if self._characters is not None:
            sums["characters"] = (jnp.asarray(self._characters)[batch.mlm_labels] * batch.mlm_weights).sum()
        return sums

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        return mlm_metrics(sums)
