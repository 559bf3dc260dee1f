"""Attention in XLA's own operations: the reference for every other kernel."""

import jax
import jax.numpy as jnp

from jaxplm.nn.dropout import dropout
from jaxplm.nn.layers import QKV


def segment_bias(segment_ids: jax.Array) -> jax.Array:
    """Return [B, 1, L, L] float32 for ids [B, L]: 0 if two tokens belong to the same segment, else a large negative number."""
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jnp.where(same, jnp.float32(0), jnp.float32(-1e9))


def split_qkv(qkv: QKV) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries, keys and values, [B, L, H, Dh] each."""
    if isinstance(qkv, tuple):
        return qkv
    q, k, v = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
    return q, k, v


def attend_plain(q_BLHd: jax.Array, k_BLHd: jax.Array, v_BLHd: jax.Array, bias_B1LL: jax.Array, dropout_rate: float,
                 key: jax.Array | None) -> jax.Array:
    """Return the values mixed by softmax(q·k / √Dh + bias), [B, L, H, Dh], with dropout of the weights."""
    scale = jnp.asarray(q_BLHd.shape[-1] ** -0.5, q_BLHd.dtype)
    scores_BHLM = jnp.einsum("blhd,bmhd->bhlm", q_BLHd * scale, k_BLHd, preferred_element_type=jnp.float32)
    weights_BHLM = jax.nn.softmax(scores_BHLM + bias_B1LL, axis=-1)
    weights_BHLM = dropout(weights_BHLM, dropout_rate, key).astype(q_BLHd.dtype)
    return jnp.einsum("bhlm,bmhd->blhd", weights_BHLM, v_BLHd)
