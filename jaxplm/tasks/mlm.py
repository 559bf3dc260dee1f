"""Masked language modelling (Devlin et al. 2019): cross-entropy at the masked positions."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.data.batch import Batch, PairBatch
from jaxplm.nn import Compute, MaskedLM
from jaxplm.scores.sums import mlm_metrics


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood (nats) and whether the label had the highest logit.

    logits [..., V] float32, labels [...] int32 → two float32 arrays [...]. The backward pass keeps the
    logits alone: softmax is made again from them, so nothing else of size V is held in memory.
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
    # A comparison and not a scatter: it fuses with its neighbours.
    label = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]
    return (cotangents[0][..., None] * (probability - label.astype(jnp.float32)), None)


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def masked_losses(model: MaskedLM, states: jax.Array, labels: jax.Array, compute: Compute) -> tuple[jax.Array, jax.Array]:
    """`cross_entropy` at the masked positions: states [B, K, D], labels [B, K] → two float32 arrays [B, K].

    With `compute.logit_parts` = P > 1 the K positions of each row are projected in P parts, one after the other, and the
    backward pass makes each part's logits again: [B, K / P, V] is held instead of [B, K, V], for a third more work in the head.
    """
    def losses(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return cross_entropy(model.decoded(part[0], compute), part[1])

    slots = labels.shape[1]
    parts = min(compute.logit_parts, slots)
    if parts == 1:
        return losses((states, labels))
    filling = -slots % parts

    def split(x: jax.Array) -> jax.Array:  # [B, K, ...] → [P, B, K / P, ...]
        x = jnp.pad(x, ((0, 0), (0, filling), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(len(x), parts, -1, *x.shape[2:]).swapaxes(0, 1)

    found = jax.lax.map(jax.checkpoint(losses), (split(states), split(labels)))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(len(labels), -1)[:, :slots], found)


def mlm_sums(model: MaskedLM, states: jax.Array, batch: Batch | PairBatch, characters: np.ndarray | None,
             compute: Compute) -> dict[str, jax.Array]:
    """The sums of a `Task` from the states [B, K, D] at the masked positions; `characters` as in `MaskedLanguageModelling`."""
    losses, correct = masked_losses(model, states, batch.mlm_labels, compute)
    sums = {
        "loss": (losses * batch.mlm_weights).sum(),
        "correct": (correct * batch.mlm_weights).sum(),
        "weight": batch.mlm_weights.sum(),
        "tokens": (batch.segment_ids > 0).sum(dtype=jnp.float32),
    }
    if characters is not None:
        sums["characters"] = (jnp.asarray(characters)[batch.mlm_labels] * batch.mlm_weights).sum()
    return sums


class MaskedLanguageModelling:
    """The Task of further pre-training; see `jaxplm.tasks.Task`.

    Args:
      characters: [V] characters of each token (`jaxplm.data.corpus.words.token_characters`). With them the loss of a character is
        measured as well: a token's loss does not compare where vocabularies cut the same text into more or fewer tokens.
      max_segments_per_row: see `nn.Compute`.
    """

    def __init__(self, characters: np.ndarray | None = None, max_segments_per_row: int = 0) -> None:
        self._characters, self._texts_a_row = characters, max_segments_per_row

    def weights_of(self, batch: Batch) -> dict[str, jax.Array]:
        return {"loss": batch.mlm_weights.sum()}

    def sums(self, model: MaskedLM, batch: Batch, *, key: jax.Array | None, compute: Compute) -> dict[str, jax.Array]:
        states = model.masked_states(batch.input_ids, batch.segment_ids, batch.position_ids, batch.mlm_positions,
                                     key=key, compute=dataclasses.replace(compute, max_segments_per_row=self._texts_a_row))
        return mlm_sums(model, states, batch, self._characters, compute)

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        return mlm_metrics(sums)
