"""Splash attention, the flash attention of JAX's Pallas kernels for TPUs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

_LANES = 128  # of a TPU's vector unit; rows are filled up to a multiple
_LARGEST = 512  # of a block: 512 × 512 float32 scores and their operands fit into a core's fast memory with room to spare


def splash_lacks(length: int, head_width: int) -> str:
    """Why the kernel does not take such rows and heads; "" if it does."""
    if length < _LANES:
        return f"rows below {_LANES} tokens would be mostly filling"
    return "splash takes widths that are multiples of 8" if head_width % 8 else ""


def attend_splash(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, interpret: bool = False) -> jax.Array:
    """q, k, v: [B, L, H, Dh], segment_ids: [B, L] → [B, L, H, Dh]. See `attention.attend`. `interpret` runs it without a TPU."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads = q.shape[1:3]
    filling = -length % _LANES
    q, k, v = (jnp.pad(x, ((0, 0), (0, filling), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L', Dh]
    ids = jnp.pad(segment_ids, ((0, 0), (0, filling)), constant_values=-1)
    mask = splash.MultiHeadMask([splash.FullMask((length + filling, length + filling))] * heads)
    kernel: Any = splash.make_splash_mha(mask, block_sizes=_blocks(splash, length + filling), head_shards=1, q_seq_shards=1,
                                         interpret=interpret)
    mixed = jax.vmap(kernel)(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v, splash.SegmentIds(ids, ids))
    return mixed.swapaxes(1, 2)[:, :length]


def _blocks(splash: Any, length: int) -> Any:
    """The largest blocks that divide a row of `length`, a multiple of 128. One block a row leaves nothing to add up between
    blocks, and then the backward pass is one kernel; of several blocks it would keep a partial dq each."""
    size = next(size for size in range(min(_LARGEST, length), 0, -_LANES) if length % size == 0)
    backward = {"use_fused_bwd_kernel": True} if size == length else {"block_q_dq": size, "block_kv_dq": size}
    return partial(splash.BlockSizes, **backward)(block_q=size, block_kv=size, block_kv_compute=size, block_q_dkv=size,
                                                  block_kv_dkv=size, block_kv_dkv_compute=size)
