"""One compiled function over every batch of a set."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from jaxplm import nn
from jaxplm.data.mlm.batches import FixedMaskBatches
from jaxplm.data.prefetch import prefetch
from jaxplm.devices import sharding
from jaxplm.engine.step import EvalStep
from jaxplm.nn import ParamTree
from jaxplm.scores.sums import Sums, add


class Batches(Protocol):
    """The batches of a set, each a pure function of its number."""

    def __len__(self) -> int: ...

    def batch(self, index: int) -> Any: ...


def sweep(step: Callable[[ParamTree, Any], Any], params: ParamTree, batches: Batches, rows: int, mesh: jax.sharding.Mesh,
          start: int = 0) -> Iterator[Any]:
    """`step(params, batch i)` for i = start, ..., on the host, each read while the next one is computed.

    Args:
      rows: B, rows a batch over all processes.
    """
    pending = None
    for batch in prefetch(lambda i: sharding.put_batch(batches.batch(i), rows, mesh), start, len(batches)):
        fresh = step(params, batch)
        if pending is not None:
            yield jax.device_get(pending)
        pending = fresh
    if pending is not None:
        yield jax.device_get(pending)


def evaluation_sums(eval_step: EvalStep, params: nn.ParamTree, batches: FixedMaskBatches, batch_size: int,
                    mesh: jax.sharding.Mesh) -> Sums:
    """The task's sums over a whole evaluation set; a few numbers a batch are all that leaves the device."""
    return add(sweep(eval_step, params, batches, batch_size, mesh))
