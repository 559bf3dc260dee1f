"""Splash attention, the flash attention for TPUs among JAX's Pallas kernels."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

_LANES = 128  # of a TPU's vector unit; rows are padded to a multiple
_LARGEST_BLOCK = 512  # tokens: 512 × 512 float32 scores and their operands fit into a core's fast memory


def splash_lacks(length: int, head_width: int) -> str:
    """Return why the kernel does not support such rows and heads; "" if it does."""
    if length < _LANES:
        return f"rows of fewer than {_LANES} tokens would be mostly padding"
    return "splash supports head widths that are multiples of 8" if head_width % 8 else ""


def attend_splash(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, interpret: bool = False) -> jax.Array:
    """Return the same as `attention.plain.attend_plain` without dropout.

    Args:
      q, k, v: [B, L, H, Dh].
      segment_ids: [B, L] int32.
      interpret: runs the kernel without a TPU, for tests.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads = q.shape[1:3]
    padding = -length % _LANES
    q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L', Dh]
    ids = jnp.pad(segment_ids, ((0, 0), (0, padding)), constant_values=-1)
    mask = splash.MultiHeadMask([splash.FullMask((length + padding, length + padding))] * heads)
    kernel: Any = splash.make_splash_mha(mask, block_sizes=_blocks(splash, length + padding), head_shards=1, q_seq_shards=1,
                                         interpret=interpret)
    mixed = jax.vmap(kernel)(q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k, v, splash.SegmentIds(ids, ids))
    return mixed.swapaxes(1, 2)[:, :length]


def _blocks(splash: Any, length: int) -> Any:
    """Return block sizes: the largest that divide a row of `length` tokens, which is a multiple of 128.

    With one block per row there is nothing to sum over blocks, so the backward pass can be one kernel. With several blocks,
    that kernel would keep a partial dq for each.
    """
    size = next(size for size in range(min(_LARGEST_BLOCK, length), 0, -_LANES) if length % size == 0)
    backward = {"use_fused_bwd_kernel": True} if size == length else {"block_q_dq": size, "block_kv_dq": size}
    return partial(splash.BlockSizes, **backward)(block_q=size, block_kv=size, block_kv_compute=size, block_q_dkv=size,
                                                  block_kv_dkv=size, block_kv_dkv_compute=size)
