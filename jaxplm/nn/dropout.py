"""Dropout by a hash of the key and the place in the array: the same mask in every kernel, on every platform and mesh."""

import math

import jax
import jax.numpy as jnp
from jax import lax


def dropout(x: jax.Array, rate: float, key: jax.Array | None, rows: jax.Array | None = None) -> jax.Array:
    """Apply inverted dropout (Srivastava et al. 2014); do nothing if `key` is None or the rate is 0.

    `rows` is that of `dropout_mask`.
    """
    if key is None or rate == 0.0:
        return x
    return jnp.where(dropout_mask(key, rate, x.shape, rows), x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def dropout_mask(key: jax.Array, rate: float, shape: tuple[int, ...], rows: jax.Array | None = None) -> jax.Array:
    """Return a boolean mask that is True with probability 1 - rate, to within 2⁻³².

    The mask is a hash of the key and the place in the array. JAX's random bits are the slowest part of dropout; this takes a
    dozen integer operations per element, which fuse with the use of the mask on every platform. Each element depends on the
    key and its own index only, so a mesh may split the array in any way.

    Args:
      key: JAX key.
      rate: probability of False.
      shape: of the mask.
      rows: [*shape[:-1]] uint32, the number of each row in a larger mask of which this is a part; None: 0, 1, ...
    """
    *lead, last = shape
    rows = lax.iota(jnp.uint32, math.prod(lead)).reshape(lead) if rows is None else rows
    columns = lax.iota(jnp.uint32, last).reshape((1,) * len(lead) + (last,))
    return keep(rows[..., None], columns, *key_words(key), rate)


def key_words(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the two uint32 words of a JAX key that `keep` reads."""
    low, high = jax.random.key_data(key).astype(jnp.uint32)[-2:]
    return low, high


def keep(rows: jax.Array, columns: jax.Array, low: jax.Array, high: jax.Array, rate: float) -> jax.Array:
    """Return whether dropout keeps the elements at `rows` and `columns`, which broadcast: uint32 → bool.

    Args:
      rows, columns: places in the mask.
      low, high: of `key_words`.
      rate: the probability of False.
    """
    seeds = _mix(_mix(rows ^ low) + high)
    return _mix(seeds ^ (columns * jnp.uint32(0x9E3779B9))) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def _mix(h: jax.Array) -> jax.Array:
    """Apply a bijection of uint32 in which each output bit depends on all input bits (xor-shift-multiply, as in MurmurHash3)."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        h = (h ^ lax.shift_right_logical(h, jnp.uint32(shift))) * jnp.uint32(factor)
    return h ^ lax.shift_right_logical(h, jnp.uint32(15))
