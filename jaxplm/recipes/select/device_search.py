"""Find candidates for the nearest vectors by products on the devices: block by block, over the mesh, in bounded memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxplm.devices import sharding
from jaxplm.devices.processes import gather

_QUERIES = 1024  # per product
_PART_ROWS = 1 << 13  # vectors per product and device: 32 MiB of cosines


class Best(NamedTuple):
    """The highest cosines so far: [q, c] float32, and the numbers of their vectors, [q, c] int32."""

    values: jax.Array | np.ndarray
    numbers: jax.Array | np.ndarray


class DeviceSearch:
    """Holds the queries on the devices, and takes the vectors in blocks.

    The vectors of a block are divided over all devices of the mesh. Each computes the cosines of its part with all queries, in
    float32 of the highest precision, and takes the highest; these alone are exchanged. Compiled once.

    Args:
      queries: [q, D] of length 1, float32.
      candidates: c, to find per query; at most the number of all vectors.
      mesh: of the run.

    Attributes:
      block_rows: vectors per block, at most.
    """

    def __init__(self, queries: np.ndarray, candidates: int, mesh: jax.sharding.Mesh) -> None:
        self._count, width = queries.shape
        self._candidates = candidates
        devices = mesh.devices.size
        self.block_rows = devices * _PART_ROWS
        rows = min(_QUERIES, len(queries))
        self._everywhere = sharding.replicated(mesh)
        self._divided = NamedSharding(mesh, P(sharding.AXES))
        padded = np.zeros((-(-len(queries) // rows) * rows, width), np.float32)
        padded[: len(queries)] = queries
        self._queries = [sharding.place(part, self._everywhere) for part in padded.reshape(-1, rows, width)]
        self._best = [self._place(Best(np.full((rows, candidates), -np.inf, np.float32), np.zeros((rows, candidates), np.int32)))
                      for _ in self._queries]
        self._step = jax.jit(_step(mesh, candidates), donate_argnums=0)

    def _place(self, best: Best) -> Best:
        return Best(sharding.place(best.values, self._everywhere), sharding.place(best.numbers, self._everywhere))

    def add(self, first: int, block: np.ndarray) -> None:
        """Take the next vectors into account.

        Args:
          first: number of the first one.
          block: [b, D] of length 1, float32; b is at most `block_rows`.
        """
        padded = block
        if len(block) < self.block_rows:
            padded = np.zeros((self.block_rows, block.shape[1]), np.float32)
            padded[: len(block)] = block
        vectors = sharding.place(padded, self._divided)
        bounds = sharding.place(np.array([first, len(block)], np.int32), self._everywhere)
        self._best = [self._step(best, queries, vectors, bounds) for best, queries in zip(self._best, self._queries, strict=True)]

    @property
    def best(self) -> Best:
        """The candidates so far, on the host, the highest first: [q, c] each. Cosines of -inf stand where there are no more."""
        parts = gather(self._best)
        return Best(*(np.concatenate(arrays)[: self._count] for arrays in zip(*parts, strict=True)))

    @best.setter
    def best(self, best: Best) -> None:
        rows = len(self._queries[0])
        for i in range(len(self._queries)):
            values, numbers = np.full((rows, self._candidates), -np.inf, np.float32), np.zeros((rows, self._candidates), np.int32)
            part = slice(i * rows, (i + 1) * rows)
            values[: len(best.values[part])], numbers[: len(best.numbers[part])] = best.values[part], best.numbers[part]
            self._best[i] = self._place(Best(values, numbers))


def _step(mesh: jax.sharding.Mesh, candidates: int):
    """Return the function (best, queries, vectors, bounds) → best; bounds are the number of the first vector, and how many there are."""

    def local(queries: jax.Array, vectors: jax.Array, bounds: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the highest cosines of this device's vectors and their numbers, gathered from all devices."""
        part = vectors.shape[0]
        cosines = jnp.matmul(queries, vectors.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
        begin = jax.lax.axis_index(sharding.AXES) * part
        places = begin + jnp.arange(part, dtype=jnp.int32)
        cosines = jnp.where(places[None] < bounds[1], cosines, -jnp.inf)
        values, at = jax.lax.top_k(cosines, min(candidates, part))
        numbers = bounds[0] + begin + at
        return tuple(jax.lax.all_gather(array, sharding.AXES, axis=1, tiled=True) for array in (values, numbers))

    everywhere, divided = P(), P(sharding.AXES)
    gathered = jax.shard_map(local, mesh=mesh, in_specs=(everywhere, divided, everywhere), out_specs=(everywhere, everywhere),
                             check_vma=False)

    def step(best: Best, queries: jax.Array, vectors: jax.Array, bounds: jax.Array) -> Best:
        values, numbers = gathered(queries, vectors, bounds)
        values = jnp.concatenate([best.values, values], axis=1)
        numbers = jnp.concatenate([best.numbers, numbers], axis=1)
        highest, at = jax.lax.top_k(values, candidates)
        return Best(highest, jnp.take_along_axis(numbers, at, axis=1))

    return step
