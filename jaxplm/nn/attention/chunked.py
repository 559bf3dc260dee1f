"""Chunked attention: plain attention on a chunk of the rows and heads at a time, the fastest form on a CPU.

[B, H, L, L] is never in memory. A chunk has R rows and G heads, and U = R G pairs of them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxplm.nn.dropout import dropout

# Largest number of scores per chunk. The backward pass holds several arrays of them, and is fastest if all fit into the
# caches. The forward pass is one operation, and is fastest on a whole batch unless that is much larger than the caches.
_WHOLE = 2**23
_FORWARD = 3 * 2**20
_BACKWARD = 3 * 2**18


class ChunkSize(NamedTuple):
    """R rows and G of their heads; R = 1 unless G is all heads."""

    rows: int
    heads: int


def chunk_size(rows: int, length: int, heads: int, max_scores: int) -> ChunkSize:
    """Return the largest chunk with at most `max_scores` scores that divides B rows of H heads; at least one head of one row."""
    def largest(count: int, scores: int) -> int:
        return next(size for size in range(count, 0, -1) if count % size == 0 and (size == 1 or size * scores <= max_scores))

    chunk_rows = largest(rows, heads * length**2)
    return ChunkSize(chunk_rows, heads if chunk_rows > 1 else largest(heads, length**2))


def _size_for(qkv_BL3Hd: jax.Array, backward: bool) -> ChunkSize:
    rows, length, _, heads, _ = qkv_BL3Hd.shape
    whole = rows * heads * length**2 <= _WHOLE
    return chunk_size(rows, length, heads, _BACKWARD if backward else _WHOLE if whole else _FORWARD)


def row_numbers(rows: int, heads: int) -> jax.Array:
    """Return [B, H] uint32: a number for each head of each row, which says to dropout where in the batch it is."""
    return lax.iota(jnp.uint32, rows * heads).reshape(rows, heads)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_chunked(qkv_BL3Hd: jax.Array, segment_ids: jax.Array, numbers_BH: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    """Return the same as `attention.plain.attend_plain`, the mask of dropout included: [B, L, H, Dh].

    The backward pass recomputes the weights of a chunk from `qkv` (Chen et al. 2016). That is a fifth product beside four,
    and takes less time than writing the weights to memory and reading them again. The products have the form that XLA's CPU
    backend computes fastest: one axis of pairs of matrices, contracted over the last axis of the left factor. Other forms run
    on one core, or are copied first.

    Args:
      qkv_BL3Hd: queries, keys and values.
      segment_ids: [B, L] int32.
      numbers_BH: the part of `row_numbers` of the whole batch for these rows and heads.
      key: dropout's; None turns it off.
      rate: dropout's.
    """
    size = _size_for(qkv_BL3Hd, backward=False)

    def write_chunk(mixed_BLHd: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
        q, k, v = _factors(_slice_chunk(qkv_BL3Hd, size, row, head))
        weights = _weights(q, k, segment_ids, size, row)
        weights = dropout(weights, rate, key, _mask_rows(numbers_BH, size, row, head, qkv_BL3Hd.shape[1])).astype(v.dtype)
        return _update_chunk(mixed_BLHd, _by_token(jnp.einsum("ulm,umd->uld", weights, v), size), row, head)

    mixed_BLHd = jnp.zeros(qkv_BL3Hd.shape[:2] + qkv_BL3Hd.shape[3:], qkv_BL3Hd.dtype)
    return _for_chunks(size, qkv_BL3Hd, write_chunk, mixed_BLHd)


def _forward(qkv, segment_ids, numbers, key, rate):
    return attend_chunked(qkv, segment_ids, numbers, key, rate), (qkv, segment_ids, numbers, key)


def _backward(rate, saved, dy_BLHd):
    qkv, segment_ids, numbers, key = saved
    size = _size_for(qkv, backward=True)
    barrier = lax.optimization_barrier  # prevents XLA from folding the transposition into the product, which then runs on one core

    def write_chunk(gradient: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
        q, k, v = _factors(_slice_chunk(qkv, size, row, head))
        d = _by_head(_slice_chunk(dy_BLHd, size, row, head))
        mask_rows = _mask_rows(numbers, size, row, head, qkv.shape[1])
        weights = _weights(q, k, segment_ids, size, row)
        kept = dropout(weights, rate, key, mask_rows).astype(d.dtype)
        dv = barrier(jnp.einsum("udl,ulm->udm", d.swapaxes(1, 2), kept)).swapaxes(1, 2)
        dweights = dropout(jnp.einsum("uld,umd->ulm", d, v, preferred_element_type=jnp.float32), rate, key, mask_rows)
        dscores = (weights * (dweights - (weights * dweights).sum(-1, keepdims=True))).astype(d.dtype)
        dq = jnp.einsum("ulm,umd->uld", dscores, k) * _scale(q)
        dk = barrier(jnp.einsum("udl,ulm->udm", q.swapaxes(1, 2), dscores)).swapaxes(1, 2)
        return _update_chunk(gradient, jnp.stack([_by_token(x, size) for x in (dq, dk, dv)], axis=2), row, head)

    return _for_chunks(size, qkv, write_chunk, jnp.zeros_like(qkv)), None, None, None


attend_chunked.defvjp(_forward, _backward)


def _for_chunks(size: ChunkSize, qkv: jax.Array, write_chunk, start: jax.Array) -> jax.Array:
    """Return the array after `write_chunk(array, row, head)` for the first row and head of every chunk in turn."""
    across = qkv.shape[3] // size.heads
    return lax.fori_loop(0, qkv.shape[0] // size.rows * across,
                         lambda i, array: write_chunk(array, i // across * size.rows, i % across * size.heads), start)


def _slice_chunk(x: jax.Array, size: ChunkSize, row: jax.Array, head: jax.Array) -> jax.Array:
    """Return the chunk of x [B, L, …, H, Dh] that begins at `row` and `head`: [R, L, …, G, Dh]."""
    middle = x.shape[1:-2]
    return lax.dynamic_slice(x, (row, *[0] * len(middle), head, 0), (size.rows, *middle, size.heads, x.shape[-1]))


def _update_chunk(x: jax.Array, chunk: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """Return x [B, L, …, H, Dh] with the chunk that begins at `row` and `head` replaced."""
    return lax.dynamic_update_slice(x, chunk, (row, *[0] * (x.ndim - 3), head, 0))


def _by_head(x: jax.Array) -> jax.Array:
    """Reshape [R, L, G, Dh] to [U, L, Dh]"""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _by_token(x: jax.Array, size: ChunkSize) -> jax.Array:
    """Reshape [U, L, Dh] to [R, L, G, Dh]"""
    return x.reshape(*size, *x.shape[1:]).swapaxes(1, 2)


def _scale(q: jax.Array) -> jax.Array:
    return jnp.asarray(q.shape[-1] ** -0.5, q.dtype)


def _factors(chunk_RL3Gd: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scaled queries, keys and values, each [U, L, Dh]."""
    q, k, v = (_by_head(chunk_RL3Gd[:, :, i]) for i in range(3))
    return q * _scale(q), k, v


def _weights(q: jax.Array, k: jax.Array, segment_ids: jax.Array, size: ChunkSize, row: jax.Array) -> jax.Array:
    """Return the softmax over the tokens of the same segment for the chunk that begins at `row`, [U, L, L] float32."""
    length = q.shape[1]
    ids = lax.dynamic_slice(segment_ids, (row, 0), (size.rows, length))
    bias = jnp.where(ids[:, :, None] == ids[:, None, :], jnp.float32(0), jnp.float32(-1e9))
    bias = jnp.broadcast_to(bias[:, None], (*size, length, length)).reshape(-1, length, length)
    return jax.nn.softmax(jnp.einsum("uld,umd->ulm", q, k, preferred_element_type=jnp.float32) + bias, axis=-1)


def _mask_rows(numbers_BH: jax.Array, size: ChunkSize, row: jax.Array, head: jax.Array, length: int) -> jax.Array:
    """Return [U, L] uint32: the number of each row of the chunk's scores among all B H L rows of scores, for `dropout`."""
    chunk = lax.dynamic_slice(numbers_BH, (row, head), size).reshape(-1, 1)
    return chunk * jnp.uint32(length) + lax.iota(jnp.uint32, length)[None]
