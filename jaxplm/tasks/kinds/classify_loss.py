"""Cross-entropy over the classes of texts (classify) or tokens (tag)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.tasks.labelled import LabelledTask, trailing


class CrossEntropy(LabelledTask):
    """One label of C for each unit, or for each token.

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
            scaled = shares * trailing(self._class_weights, shares.ndim)
            uniform = scaled.mean(-1) / jnp.asarray(self._class_weights)[batch.labels]
        return -(1 - self._smoothing) * chosen - self._smoothing * uniform
