"""One compiled function over every batch of a set."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from jaxplm import sharding
from jaxplm.data.pipeline import prefetch
from jaxplm.nn import ParamTree


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
