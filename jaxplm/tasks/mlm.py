"""Masked language modelling (Devlin et al. 2019): cross-entropy at the masked positions."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.batch import Batch, PairBatch
from jaxplm.metrics import mlm_metrics
from jaxplm.nn import Compute, MaskedLM


@jax.custom_vjp
def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood (nats) and whether the label had the highest logit.

    logits [..., V] float32, labels [...] int32 → two float32 arrays [...]. The backward pass keeps the
    logits alone: softmax is made again from them, so nothing else of size V is held in memory.
    """
    return _cross_entropy_forward(logits, labels)[0]


def _is_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    # A comparison, not a gather: it fuses with its neighbours and splits over a vocabulary that is sharded.
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == labels[..., None]


def _cross_entropy_forward(logits, labels):
    highest = logits.max(-1)
    total = jnp.exp(logits - highest[..., None]).sum(-1)
    log_total = jnp.log(total) + highest
    chosen = jnp.where(_is_label(logits, labels), logits, 0.0).sum(-1)
    return (log_total - chosen, (chosen >= highest).astype(jnp.float32)), (logits, labels, log_total)


def _cross_entropy_backward(saved, cotangents):
    logits, labels, log_total = saved
    probability = jnp.exp(logits - log_total[..., None])
    return (cotangents[0][..., None] * (probability - _is_label(logits, labels).astype(jnp.float32)), None)


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def mlm_sums(logits: jax.Array, batch: Batch | PairBatch, characters: np.ndarray | None) -> dict[str, jax.Array]:
    """The sums of a `Task` from the logits [B, K, Vp] at the masked positions; `characters` as in `MaskedLanguageModelling`."""
    losses, correct = cross_entropy(logits, batch.mlm_labels)
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
      characters: [V] characters of each token (`jaxplm.data.words.token_characters`). With them the loss of a character is
        measured as well: a token's loss does not compare where vocabularies cut the same text into more or fewer tokens.
      texts_a_row: see `nn.Compute`.
    """

    def __init__(self, characters: np.ndarray | None = None, texts_a_row: int = 0) -> None:
        self._characters, self._texts_a_row = characters, texts_a_row

    def weights_of(self, batch: Batch) -> dict[str, jax.Array]:
        return {"loss": batch.mlm_weights.sum()}

    def sums(self, model: MaskedLM, batch: Batch, *, key: jax.Array | None, compute: Compute) -> dict[str, jax.Array]:
        logits = model.masked_logits(batch.input_ids, batch.segment_ids, batch.position_ids, batch.mlm_positions,
                                     key=key, compute=dataclasses.replace(compute, texts_a_row=self._texts_a_row))
        return mlm_sums(logits, batch, self._characters)

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        return mlm_metrics(sums)
