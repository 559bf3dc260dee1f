"""Binary cross-entropy over any number of labels per text (multilabel)."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxplm.tasks.labelled import LabelledTask, trailing


class BinaryCrossEntropy(LabelledTask):
    """Any of C labels for each unit: the mean over the labels.

    Args:
      class_weights: C numbers by which the present labels count (PyTorch's pos_weight). None: all 1.
    """

    def __init__(self, class_weights: np.ndarray | Sequence[float] | None = None) -> None:
        self._class_weights = None if class_weights is None else np.asarray(class_weights, np.float32)

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        present, absent = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
        if self._class_weights is not None:
            present = present * trailing(self._class_weights, logits.ndim)
        return (batch.labels * present + (1 - batch.labels) * absent).mean(-1)
