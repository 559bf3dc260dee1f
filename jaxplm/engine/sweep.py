"""Call one compiled function with every batch of a set."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from jaxplm.data.batch import HostBatch
from jaxplm.data.prefetch import prefetch
from jaxplm.devices import sharding
from jaxplm.engine.step import EvalStep
from jaxplm.nn import ParamTree
from jaxplm.scores.sums import Sums, add


class Batches(Protocol):
    """The batches of a set, each a pure function of its number."""

    def __len__(self) -> int: ...

    def batch(self, index: int) -> HostBatch: ...


def sweep(step: Callable[[ParamTree, Any], Any], params: ParamTree, batches: Batches, rows: int, mesh: jax.sharding.Mesh,
          start: int = 0) -> Iterator[Any]:
    """Yield `step(params, batch i)` for i = start, ..., on the host, each read while the next one is computed.

    Args:
      rows: B, rows per batch over all processes.
    """
    pending = None
    for batch in prefetch(lambda i: sharding.put_batch(batches.batch(i), rows, mesh), start, len(batches)):
        fresh = step(params, batch)
        if pending is not None:
            yield jax.device_get(pending)
        pending = fresh
    if pending is not None:
        yield jax.device_get(pending)


def evaluation_sums(eval_step: EvalStep, params: ParamTree, batches: Batches, rows: int, mesh: jax.sharding.Mesh) -> Sums:
    """Return a task's sums over a whole evaluation set. Only a few numbers per batch leave the device."""
    return add(sweep(eval_step, params, batches, rows, mesh))
