"""Attention within the texts of a row: the one place that decides how it is computed."""

import jax
import jax.numpy as jnp

from jaxplm.nn.layers import dropout


def segment_bias(segment_ids: jax.Array) -> jax.Array:
    """[B, L] → [B, 1, L, L] float32: 0 where two tokens belong to one text, a large negative number elsewhere.

    Padding is segment 0 and attends to padding alone, so no row of the softmax is empty.
    """
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jnp.where(same, jnp.float32(0), jnp.float32(-1e9))


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, dropout_rate: float,
           key: jax.Array | None) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1), block-diagonal by `bias`.

    q, k, v: [B, L, H, Dh]; bias: [B, 1, L, L]; returns [B, L, H, Dh]. Softmax in float32.
    """
    scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("blhd,bmhd->bhlm", q * scale, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1)
    weights = dropout(weights, dropout_rate, key).astype(q.dtype)
    return jnp.einsum("bhlm,bmhd->blhd", weights, v)
