"""One vector for each unit of a row, from the vectors of its tokens."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def unit_mask(segment_ids: jax.Array, max_segments: int) -> jax.Array:
    """Return [B, S, L] bool from segment_ids [B, L]: which tokens belong to unit s, that is to segment s + 1; S = `max_segments`."""
    units = lax.broadcasted_iota(segment_ids.dtype, (1, max_segments, 1), 1) + 1
    return segment_ids[:, None, :] == units


def pool(hidden: jax.Array, segment_ids: jax.Array, first: jax.Array, how: str) -> jax.Array:
    """Return the vectors of the units, [B, S, D] float32; segments without a unit are zero.

    Args:
      hidden: [B, L, D], in any floating-point type.
      segment_ids: [B, L] int32, 0 for padding; unit s is segment s + 1, and its tokens are next to each other.
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
def _unit_max(hidden: jax.Array, segment_ids: jax.Array, max_segments: int) -> jax.Array:
    """Return the maximum over the tokens of each unit; of equal values the first gets the gradient.

    The backward pass keeps the places of the maxima alone. Autodiff would keep a mask [B, S, L, D].
    """
    return _unit_max_forward(hidden, segment_ids, max_segments)[0]


def _unit_max_forward(hidden, segment_ids, max_segments):
    inside = unit_mask(segment_ids, max_segments)
    place = lax.broadcasted_iota(jnp.int32, inside.shape, 2)
    last = jnp.where(inside, place, 0).max(-1)  # [B, S]
    where = jnp.take_along_axis(_running_argmax(hidden, segment_ids), last[..., None], axis=1)  # [B, S, D]
    highest = jnp.take_along_axis(hidden, where, axis=1)
    pooled = jnp.where(inside.any(-1, keepdims=True), highest, jnp.zeros((), hidden.dtype)).astype(jnp.float32)
    return pooled, (where, segment_ids, jnp.zeros((), hidden.dtype))


def _running_argmax(hidden: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Return [B, L, D] int32 from [B, L, D]: the place of the highest value from the start of each token's unit up to the token.

    One pass over the tokens; a reduction for each of the S segments would read everything S times, most of it masked.
    """
    begins = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def step(state: tuple[jax.Array, jax.Array], token: tuple[jax.Array, jax.Array, jax.Array]):
        highest, where = state
        value, begin, place = token
        better = begin[:, None] | (value > highest) | jnp.isnan(value)  # a NaN must not get lost
        state = jnp.where(better, value, highest), jnp.where(better, place, where)
        return state, state[1]

    start = hidden[:, 0], jnp.zeros(hidden[:, 0].shape, jnp.int32)
    tokens = hidden.swapaxes(0, 1), begins.T, jnp.arange(hidden.shape[1], dtype=jnp.int32)
    return lax.scan(step, start, tokens)[1].swapaxes(0, 1)


def _unit_max_backward(max_segments, saved, dy):
    where, segment_ids, zero = saved
    unit = jnp.clip(segment_ids - 1, 0, max_segments - 1)[..., None]  # [B, L, 1]: a token looks at its own unit
    real = ((segment_ids > 0) & (segment_ids <= max_segments))[..., None]
    place = lax.broadcasted_iota(jnp.int32, (1, segment_ids.shape[1], 1), 1)
    chosen = (jnp.take_along_axis(where, unit, axis=1) == place) & real
    return jnp.where(chosen, jnp.take_along_axis(dy, unit, axis=1).astype(zero.dtype), zero), None


_unit_max.defvjp(_unit_max_forward, _unit_max_backward)
