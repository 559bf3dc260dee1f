"""What the loop knows of a task. It knows nothing else: losses and metrics live in the task's own module."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the kinds of tasks below this package are listed before JAX is imported
    import jax

    from jaxplm.nn import Compute


class Task(Protocol):
    """A loss as sums, so that accumulation, packing, padding and unequal hosts stay unbiased by construction."""

    def weights_of(self, batch: Any) -> "dict[str, jax.Array]":
        """{name of a loss's sum: the float32 number of things that it is a mean over in this batch}; known without the model.

        One is 'loss'. The sum of the means is differentiated.
        """
        ...

    def sums(self, model: Any, batch: Any, *, key: "jax.Array | None", compute: "Compute") -> "dict[str, jax.Array]":
        """float32 scalars: 'loss' and what else `weights_of` names, which are differentiated; 'weight', 'tokens' (real ones), and
        the task's own."""
        ...

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What is logged, from sums over any number of batches; has 'loss'."""
        ...
