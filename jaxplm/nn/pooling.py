"""One vector for each unit of a row, from the vectors of its tokens."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def unit_mask(segment_ids: jax.Array, slots: int) -> jax.Array:
    """segment_ids [B, L] → [B, S, L] bool: which tokens belong to unit s, that is to segment s + 1; S = `slots`."""
    units = lax.broadcasted_iota(segment_ids.dtype, (1, slots, 1), 1) + 1
    return segment_ids[:, None, :] == units


def pool(hidden: jax.Array, segment_ids: jax.Array, first: jax.Array, how: str) -> jax.Array:
    """The vectors of the units: [B, S, D] float32; slots without a unit are zero.

    Args:
      hidden: [B, L, D], in any floating-point type.
      segment_ids: [B, L] int32, 0 for padding; unit s is segment s + 1.
      first: [B, S] int32, where each unit starts.
      how: cls (the vector at `first`), or mean or max over all tokens of the unit, special ones too, as in
        sentence-transformers (Reimers & Gurevych 2019).
    """
    inside = unit_mask(segment_ids, first.shape[1])  # [B, S, L]
    if how == "max":
        return _unit_max(hidden, segment_ids, first.shape[1])
    if how == "cls":
        chosen = jnp.take_along_axis(hidden, first[..., None], axis=1)
        return jnp.where(inside.any(-1, keepdims=True), chosen, jnp.zeros((), hidden.dtype)).astype(jnp.float32)
    # Ones and zeros are exact in any type, and so is the sum in float32: no pass at lower precision, then.
    total = jnp.einsum("bsl,bld->bsd", inside.astype(hidden.dtype), hidden, precision=lax.Precision.HIGHEST,
                       preferred_element_type=jnp.float32)
    return total / jnp.maximum(inside.sum(-1, keepdims=True, dtype=jnp.float32), 1.0)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unit_max(hidden: jax.Array, segment_ids: jax.Array, slots: int) -> jax.Array:
    """Maximum over the tokens of each unit; of equal ones the first gets the gradient.

    The backward pass keeps the places of the maxima alone. Autodiff would keep a mask [B, S, L, D].
    """
    return _unit_max_forward(hidden, segment_ids, slots)[0]


def _unit_max_forward(hidden, segment_ids, slots):
    inside = unit_mask(segment_ids, slots)
    seen = jnp.where(inside[..., None], hidden[:, None], jnp.asarray(-jnp.inf, hidden.dtype))  # [B, S, L, D], never stored
    where = seen.argmax(2).astype(jnp.int32)  # [B, S, D]
    highest = jnp.take_along_axis(hidden, where, axis=1)
    pooled = jnp.where(inside.any(-1, keepdims=True), highest, jnp.zeros((), hidden.dtype)).astype(jnp.float32)
    return pooled, (where, segment_ids, jnp.zeros((), hidden.dtype))


def _unit_max_backward(slots, saved, dy):
    where, segment_ids, zero = saved
    unit = jnp.clip(segment_ids - 1, 0, slots - 1)[..., None]  # [B, L, 1]: a token looks at its own unit
    real = ((segment_ids > 0) & (segment_ids <= slots))[..., None]
    place = lax.broadcasted_iota(jnp.int32, (1, segment_ids.shape[1], 1), 1)
    chosen = (jnp.take_along_axis(where, unit, axis=1) == place) & real
    return jnp.where(chosen, jnp.take_along_axis(dy, unit, axis=1).astype(zero.dtype), zero), None


_unit_max.defvjp(_unit_max_forward, _unit_max_backward)
