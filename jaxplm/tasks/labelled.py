"""Labelled tasks on the device: logits of a batch, and the loss as sums. Each kind of task has its own losses.

The model is an `nn.TaskModel` (rows of tokens) or its head alone (`FeatureBatch`: vectors of a frozen encoder that were
computed before).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.data.batch import FeatureBatch, TaskBatch
from jaxplm.nn import Compute, HeadModel, TaskModel

Sums = dict[str, jax.Array]


def logits(model: TaskModel | HeadModel, batch: TaskBatch | FeatureBatch, *, key: jax.Array | None, compute: Compute) -> jax.Array:
    """Return float32 logits of the units, [B, S, C], or of the tokens, [B, L, C]."""
    keys = (None, None) if key is None else jax.random.split(key)
    if isinstance(batch, FeatureBatch):
        features = batch.features
    else:
        assert isinstance(model, TaskModel)
        features = model.features(batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.first,
                                  key=keys[0], compute=compute)
    return model.logits_from(features, batch.segment_ids, key=keys[1], compute=compute)


class LabelledTask(ABC):
    """A labelled task for the loop (see `jaxplm.tasks.Task`). A kind of task brings its `losses`."""

    @abstractmethod
    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        """Return the loss of every label, in the shape of `batch.weights`."""

    def weights(self, batch: Any) -> jax.Array:
        """Return how much each label counts in the loss, in the shape of `batch.weights`."""
        return batch.weights

    def weights_of(self, batch: Any) -> dict[str, jax.Array]:
        return {"loss": self.weights(batch).sum()}

    def sums(self, model: TaskModel | HeadModel, batch: Any, *, key: jax.Array | None, compute: Compute) -> Sums:
        return self.sums_of(logits(model, batch, key=key, compute=compute), batch)

    def sums_of(self, logits: jax.Array, batch: Any) -> Sums:
        """Return the sums of a batch whose logits are known."""
        weights = self.weights(batch)
        return {
            "loss": (self.losses(logits, batch) * weights).sum(),
            "weight": weights.sum(),
            "tokens": (batch.segment_ids > 0).sum(dtype=jnp.float32),
        }

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"] / sums["weight"] if sums["weight"] else float("nan")}


def trailing(vector: np.ndarray, ndim: int) -> jax.Array:
    """Return [C] numbers with leading axes of size 1, so that they multiply the last axis of an array of `ndim` dimensions."""
    return jnp.asarray(vector).reshape((1,) * (ndim - 1) + (-1,))
