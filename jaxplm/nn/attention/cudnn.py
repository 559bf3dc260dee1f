"""cuDNN's flash attention on packed rows (NVIDIA, Hopper or newer), by JAX's private interface to it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Runs(NamedTuple):
    """Where the segments of each row are, in the order of the row. M is the largest number of them.

    Padding is a run too, so the runs cover a row without gaps. cuDNN does not write the output outside of the runs.
    """

    starts: jax.Array  # [B, M + 1] int32, the first token of each; -1 in unused places and in the last one
    lengths: jax.Array  # [B, M] int32; -1 in unused places
    too_many: jax.Array  # [B] bool: the row has more than M runs


def runs_of(segment_ids: jax.Array, max_segments_per_row: int) -> Runs:
    """Return the runs of equal ids in each row.

    cuDNN's workspace and its softmax statistics [B M, H, L] grow with M, so a known bound saves memory.

    Args:
      segment_ids: [B, L] int32.
      max_segments_per_row: upper bound of the texts per row, not counting padding; 0 if none is known, and M is L.
    """
    _, length = segment_ids.shape
    most = min(max_segments_per_row + 1, length) if max_segments_per_row else length
    begins_BL = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    places_BL = jnp.where(begins_BL, jnp.arange(length, dtype=jnp.int32)[None], length)
    edges = jnp.pad(jnp.sort(places_BL, axis=1), ((0, 0), (0, 1)), constant_values=length)[:, : most + 1]  # [B, M + 1]
    used = edges[:, :-1] < length
    starts = jnp.pad(jnp.where(used, edges[:, :-1], -1), ((0, 0), (0, 1)), constant_values=-1)
    return Runs(starts, jnp.where(used, jnp.diff(edges, axis=1), -1), begins_BL.sum(1) > most)


def cudnn_lacks(length: int, head_width: int) -> str:
    """Return why the kernel does not support such rows and heads; "" if it does."""
    if head_width % 8 or head_width > 256:
        return "cuDNN supports head widths that are multiples of 8, up to 256"
    return "" if length > 1 else "cuDNN needs rows of more than one token"


def attend_cudnn(q: jax.Array, k: jax.Array, v: jax.Array, runs: Runs) -> jax.Array:
    """Return the same as `attention.plain.attend_plain` without dropout.

    q, k, v: [B, L, H, Dh] bfloat16 → [B, L, H, Dh].

    Raises ImportError, TypeError or another error if JAX has changed the private interface. `attention.selfcheck` runs the
    kernel first for that reason.
    """
    from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention

    # Without mask and bias: the runs say which tokens attend to each other, and a bias would be a tensor [B, 1, L, L] with a gradient.
    mixed: Any = dot_product_attention(q, k, v, q_seqlen=runs.lengths, kv_seqlen=runs.lengths, q_offsets=runs.starts,
                                       kv_offsets=runs.starts, scale=q.shape[-1] ** -0.5, qkv_layout="BTNH")
    return mixed
