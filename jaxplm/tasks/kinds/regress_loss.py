"""Squared error of a number per text (regress)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxplm.tasks.labelled import LabelledTask


class SquaredError(LabelledTask):
    """A number for each unit, or for each token."""

    def losses(self, logits: jax.Array, batch: Any) -> jax.Array:
        return jnp.square(logits[..., 0] - batch.labels)
