"""Checksums of a training state: one number per leaf, the same on every mesh.

A checkpoint store notices a file that is missing or cut short, but not always a bit that flipped in the numbers.
So the sums are taken from the arrays themselves, on their devices, before they are written and again after they
were read. They are sums modulo 2**32, which do not depend on the order of the terms, hence not on the mesh.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

_GOLDEN = 0x9E3779B1  # odd constants with well mixed bits (Knuth's multiplicative hash, MurmurHash3)
_MURMUR = 0x85EBCA6B


def checksums(leaves: Sequence[jax.Array]) -> list[int]:
    """Return one unsigned 32-bit checksum for each array.

    `sum_i bits(x_i) * w_i mod 2**32`, where the weights `w_i` are odd and depend on the position: a change of any
    one element always changes the sum, other damage escapes with probability 2**-32, and moved elements are seen.
    In a run of several processes all of them call it together and all get the same numbers.

    Args:
      leaves: arrays of numbers or booleans, of any shape, at most 8 bytes per element.

    Returns:
      As many integers in [0, 2**32).

    Raises:
      TypeError: for complex numbers and for typed random keys.
    """
    if not leaves:
        return []
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.number) and leaf.dtype != jnp.bool_:
            raise TypeError(f"no checksum for {leaf.dtype}; store random keys as their raw data")
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(f"no checksum for {leaf.dtype}")
    meshes = [leaf.sharding.mesh for leaf in leaves if isinstance(leaf.sharding, NamedSharding)]
    # Replicated, so that every process can read the result without another collective.
    replicated = NamedSharding(meshes[0], PartitionSpec()) if meshes else None
    return [int(value) for value in jax.device_get(_compiled(replicated)(tuple(leaves)))]


@functools.lru_cache(maxsize=8)
def _compiled(out_sharding: NamedSharding | None):
    return jax.jit(lambda leaves: jnp.stack([_checksum(leaf) for leaf in leaves]), out_shardings=out_sharding)


def _checksum(x: jax.Array) -> jax.Array:
    """Return a uint32 scalar for one array of any shape."""
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):  # the flat index without a reshape, which would gather a sharded array
        stride = math.prod(x.shape[axis + 1 :]) % 2**32
        index += lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride)
    weight = (index + jnp.uint32(1)) * jnp.uint32(_GOLDEN)
    weight = (weight ^ (weight >> jnp.uint32(15))) * jnp.uint32(_MURMUR)
    weight = (weight ^ (weight >> jnp.uint32(13))) | jnp.uint32(1)
    return jnp.sum(_bits(x) * weight, dtype=jnp.uint32)


def _bits(x: jax.Array) -> jax.Array:
    """Return the bit pattern of each element in one uint32, in the shape of x."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    size = x.dtype.itemsize
    if size == 8:
        low, high = jnp.moveaxis(lax.bitcast_convert_type(x, jnp.uint32), -1, 0)
        return low + high * jnp.uint32(_GOLDEN)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[size]
    return lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
