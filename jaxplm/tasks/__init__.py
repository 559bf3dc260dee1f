"""What the loop knows of a task. It knows nothing else: losses and metrics live in the task's own module."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the kinds of tasks below this package are listed before JAX is imported
    import jax

    from jaxplm.nn import Compute


class Task(Protocol):
    """A loss as sums, so that accumulation, packing, padding and unequal hosts stay unbiased by construction."""

    def weights_of(self, batch: Any) -> "dict[str, jax.Array]":
        """Return, by the name of a loss's sum, the float32 number of things that it is a mean over in this batch.

        It is known without the model. One name is 'loss'. The sum of the means is differentiated.
        """
        ...

    def sums(self, model: Any, batch: Any, *, key: "jax.Array | None", compute: "Compute") -> "dict[str, jax.Array]":
        """Return the sums of a batch as float32 scalars.

        They are 'loss' and what else `weights_of` names, which are differentiated; 'weight'; 'tokens', without padding; and the
        task's own.
        """
        ...

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return what is logged, from sums over any number of batches. One name is 'loss'."""
        ...
