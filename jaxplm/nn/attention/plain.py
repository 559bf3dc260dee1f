"""Attention in XLA's own operations: the reference of every other kernel."""

import jax
import jax.numpy as jnp

from jaxplm.nn.layers import dropout


def segment_bias(segment_ids: jax.Array) -> jax.Array:
    """[B, L] → [B, 1, L, L] float32: 0 where two tokens belong to one text, a large negative number elsewhere."""
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jnp.where(same, jnp.float32(0), jnp.float32(-1e9))


def apart(qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, L, 3, H, Dh] → queries, keys, values: [B, L, H, Dh]."""
    q, k, v = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
    return q, k, v


def attend_plain(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, dropout_rate: float,
                 key: jax.Array | None) -> jax.Array:
    """`attend` in XLA's own operations, with the mask as `bias` [B, 1, L, L]."""
    scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("blhd,bmhd->bhlm", q * scale, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1)
    weights = dropout(weights, dropout_rate, key).astype(q.dtype)
    return jnp.einsum("bhlm,bmhd->blhd", weights, v)
