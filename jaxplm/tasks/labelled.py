"""Downstream tasks on the device: the losses of classification, regression, tagging and question answering, as sums.

Each class is a `Task` for the loop and has `logits` for evaluation. The model is an `nn.TaskModel` (rows of tokens) or
its head alone (`FeatureBatch`: vectors of a frozen encoder that were computed before).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.config import Task as TaskConfig
from jaxplm.data.batch import FeatureBatch, TaskBatch
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.nn import Compute, HeadModel, TaskModel

Sums = dict[str, jax.Array]


def logits(model: TaskModel | HeadModel, batch: TaskBatch | FeatureBatch, *, key: jax.Array | None, compute: Compute) -> jax.Array:
    """float32 [B, S, C] for a unit's label, [B, L, C] for tags, [B, L, 2] for the ends of an answer."""
    keys = (None, None) if key is None else jax.random.split(key)
    if isinstance(batch, FeatureBatch):
        features = batch.features
    else:
        assert isinstance(model, TaskModel)
        features = model.features(batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.first,
                                  key=keys[0], compute=compute)
    return model.logits_from(features, batch.segment_ids, key=keys[1], compute=compute)


class LabelledTask(ABC):
    """What the tasks share: `losses` is each kind's own."""

    @abstractmethod
    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        """The loss of every label, in the shape of `batch.weights`."""

    def weights(self, batch: Any) -> jax.Array:
        """How much each label counts in the loss, in the shape of `batch.weights`."""
        return batch.weights

    def weights_of(self, batch: Any) -> dict[str, jax.Array]:
        return {"loss": self.weights(batch).sum()}

    def sums(self, model: TaskModel | HeadModel, batch: Any, *, key: jax.Array | None, compute: Compute) -> Sums:
        return self.sums_of(logits(model, batch, key=key, compute=compute), batch)

    def sums_of(self, logits: jax.Array, batch: Any) -> Sums:
        """The sums, from logits that are there already."""
        weights = self.weights(batch)
        return {
            "loss": (self.losses(logits, batch) * weights).sum(),
            "weight": weights.sum(),
            "tokens": (batch.segment_ids > 0).sum(dtype=jnp.float32),
        }

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"] / sums["weight"] if sums["weight"] else float("nan")}


class Classification(LabelledTask):
    """One label of C for each unit, or for each token (tags): cross-entropy.

    Args:
      smoothing: of the label towards the uniform distribution (Szegedy et al. 2016), as in PyTorch's cross_entropy.
      class_weights: C numbers; the loss is then the weighted mean, as in PyTorch's cross_entropy. None: all 1.
    """

    def __init__(self, smoothing: float = 0.0, class_weights: np.ndarray | Sequence[float] | None = None) -> None:
        self._smoothing = smoothing
        self._class_weights = None if class_weights is None else np.asarray(class_weights, np.float32)

    def weights(self, batch: Any) -> jax.Array:
        if self._class_weights is None:
            return batch.weights
        return batch.weights * jnp.asarray(self._class_weights)[batch.labels]

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        shares = jax.nn.log_softmax(logits, axis=-1)
        chosen = jnp.take_along_axis(shares, batch.labels[..., None], axis=-1)[..., 0]
        if not self._smoothing:
            return -chosen
        if self._class_weights is None:
            uniform = shares.mean(-1)
        else:  # each class's part counts by its own weight, not by the label's
            scaled = shares * _trailing(self._class_weights, shares.ndim)
            uniform = scaled.mean(-1) / jnp.asarray(self._class_weights)[batch.labels]
        return -(1 - self._smoothing) * chosen - self._smoothing * uniform


def _trailing(vector: np.ndarray, ndim: int) -> jax.Array:
    return jnp.asarray(vector).reshape((1,) * (ndim - 1) + (-1,))


class Multilabel(LabelledTask):
    """Any of C labels for each unit: binary cross-entropy, the mean over the labels.

    Args:
      class_weights: C numbers by which the present labels count (PyTorch's pos_weight). None: all 1.
    """

    def __init__(self, class_weights: np.ndarray | Sequence[float] | None = None) -> None:
        self._class_weights = None if class_weights is None else np.asarray(class_weights, np.float32)

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        present, absent = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
        if self._class_weights is not None:
            present = present * _trailing(self._class_weights, logits.ndim)
        return (batch.labels * present + (1 - batch.labels) * absent).mean(-1)


class Regression(LabelledTask):
    """A number for each unit: squared error."""

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        return jnp.square(logits[..., 0] - batch.labels)


class QuestionAnswering(LabelledTask):
    """The first and the last token of an answer in each unit (Devlin et al. 2019, section 4.2)."""

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        units = jnp.arange(1, batch.weights.shape[1] + 1, dtype=batch.segment_ids.dtype)
        inside = batch.segment_ids[:, None, :] == units[None, :, None]  # [B, S, L]
        inside = inside | ~inside.any(-1, keepdims=True)  # unused slots: anything finite, weight 0
        total = jnp.zeros(batch.weights.shape, jnp.float32)
        for end in range(2):
            shares = jax.nn.log_softmax(jnp.where(inside, logits[:, None, :, end], -1e9), axis=-1)
            total = total - jnp.take_along_axis(shares, batch.labels[:, :, end, None], axis=-1)[..., 0]
        return total / 2


def task_of(task: TaskConfig, labels: LabelSet) -> LabelledTask:
    """The task of `config.Task` over these labels."""
    weights = labels.balanced_weights() if task.class_weights == "balanced" else None
    if task.kind in ("classify", "tag"):
        return Classification(task.label_smoothing, weights)
    if task.kind == "multilabel":
        return Multilabel(weights)
    return Regression() if task.kind == "regress" else QuestionAnswering()
