"""cuDNN's flash attention on packed rows (NVIDIA, Hopper or newer), by JAX's private interface to it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Runs(NamedTuple):
    """Where the segments of each row lie, in the order of the row; M is the largest number there may be.

    Padding is a run like any other, so the runs cover a row without gaps: cuDNN leaves what lies outside of them unwritten.
    """

    starts: jax.Array  # [B, M + 1] int32, the first token of each; -1 in unused places and in the last one
    lengths: jax.Array  # [B, M] int32; -1 in unused places
    too_many: jax.Array  # [B] bool: the row has more than M


def runs_of(segment_ids: jax.Array, max_segments_per_row: int) -> Runs:
    """The runs of equal ids of each row.

    cuDNN's workspace and its softmax statistics [B M, H, L] grow with M, so it matters that a bound is known.

    Args:
      segment_ids: [B, L] int32.
      max_segments_per_row: bound on the texts of a row, padding not among them; 0: none is known, and M is L.
    """
    rows, length = segment_ids.shape
    most = min(max_segments_per_row + 1, length) if max_segments_per_row else length
    begins = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=True)  # [B, L]
    places = jnp.where(begins, jnp.arange(length, dtype=jnp.int32)[None], length)
    edges = jnp.pad(jnp.sort(places, axis=1), ((0, 0), (0, 1)), constant_values=length)[:, : most + 1]  # [B, M + 1]
    used = edges[:, :-1] < length
    starts = jnp.pad(jnp.where(used, edges[:, :-1], -1), ((0, 0), (0, 1)), constant_values=-1)
    return Runs(starts, jnp.where(used, jnp.diff(edges, axis=1), -1), begins.sum(1) > most)


def cudnn_lacks(length: int, head_width: int) -> str:
    """Why the kernel does not take such rows and heads; "" if it does."""
    if head_width % 8 or head_width > 256:
        return "cuDNN takes widths that are multiples of 8, up to 256"
    return "" if length > 1 else "a row of one token is no packed row"


def attend_cudnn(q: jax.Array, k: jax.Array, v: jax.Array, runs: Runs) -> jax.Array:
    """q, k, v: [B, L, H, Dh] bfloat16 → [B, L, H, Dh]. See `attention.attend`.

    Raises ImportError, TypeError or what else comes where JAX has changed the interface: `attention_check` tries it first.
    """
    from jax._src.cudnn.fused_attention_stablehlo import dot_product_attention

    # No mask and no bias: the runs say all, and a bias would be a tensor [B, 1, L, L] with a gradient.
    mixed: Any = dot_product_attention(q, k, v, q_seqlen=runs.lengths, kv_seqlen=runs.lengths, q_offsets=runs.starts,
                                       kv_offsets=runs.starts, scale=q.shape[-1] ** -0.5, qkv_layout="BTNH")
    return mixed
