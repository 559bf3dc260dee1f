"""Plain attention a part of the rows and heads at a time: what a CPU is quickest at, without [B, H, L, L] in memory."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxplm.nn.layers import dropout

# How many scores a part may have. The backward pass holds several arrays of them and is quickest where all stay in the
# caches; the forward pass is one operation, quickest on a whole batch as long as that is not much larger than they are.
_WHOLE = 2**23
_FORWARD = 3 * 2**20
_BACKWARD = 3 * 2**18


class Part(NamedTuple):
    """R rows and G heads of them; R = 1 where G is not all heads."""

    rows: int
    heads: int


def part_of(rows: int, length: int, heads: int, most: int) -> Part:
    """The largest part of at most so many scores that divides B rows of H heads; one head of one row at least."""
    def largest(count: int, scores: int) -> int:
        return next(size for size in range(count, 0, -1) if count % size == 0 and (size == 1 or size * scores <= most))

    at_a_time = largest(rows, heads * length**2)
    return Part(at_a_time, heads if at_a_time > 1 else largest(heads, length**2))


def _part(qkv: jax.Array, backward: bool) -> Part:
    rows, length, _, heads, _ = qkv.shape
    whole = rows * heads * length**2 <= _WHOLE
    return part_of(rows, length, heads, _BACKWARD if backward else _WHOLE if whole else _FORWARD)


def numbers_of(rows: int, heads: int) -> jax.Array:
    """[B, H] uint32: the number of each row's head, by which dropout knows its place in the batch."""
    return lax.iota(jnp.uint32, rows * heads).reshape(rows, heads)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_chunked(qkv: jax.Array, segment_ids: jax.Array, numbers: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    """As `attention.attend_plain`, dropout's mask too.

    qkv: [B, L, 3, H, Dh], segment_ids: [B, L], numbers: [B, H] as `numbers_of` the whole batch has them → [B, L, H, Dh].

    The backward pass makes the weights of a part again from `qkv` (Chen et al. 2016): a fifth product beside its four, which
    costs less than writing the weights to memory and reading them. The products are written as XLA's CPU backend computes them
    best, one axis of pairs of matrices, contracted over the last axis of the left factor: others it runs on one core,
    or copies first.
    """
    size = _part(qkv, backward=False)

    def put(mixed: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
        q, k, v = _factors(_cut(qkv, size, row, head))
        weights = _weights(q, k, segment_ids, size, row)
        weights = dropout(weights, rate, key, _numbers(numbers, size, row, head, qkv.shape[1])).astype(v.dtype)
        return _put(mixed, _by_token(jnp.einsum("ulm,umd->uld", weights, v), size), row, head)

    return _for_parts(size, qkv, put, jnp.zeros(qkv.shape[:2] + qkv.shape[3:], qkv.dtype))


def _forward(qkv, segment_ids, numbers, key, rate):
    return attend_chunked(qkv, segment_ids, numbers, key, rate), (qkv, segment_ids, numbers, key)


def _backward(rate, saved, dy):
    qkv, segment_ids, numbers, key = saved
    size = _part(qkv, backward=True)
    barrier = lax.optimization_barrier  # keeps XLA from folding the transposition into the product, which it then runs on one core

    def put(found: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
        q, k, v = _factors(_cut(qkv, size, row, head))
        d = _by_head(_cut(dy, size, row, head))
        places = _numbers(numbers, size, row, head, qkv.shape[1])
        weights = _weights(q, k, segment_ids, size, row)
        kept = dropout(weights, rate, key, places).astype(d.dtype)
        dv = barrier(jnp.einsum("udl,ulm->udm", d.swapaxes(1, 2), kept)).swapaxes(1, 2)
        dweights = dropout(jnp.einsum("uld,umd->ulm", d, v, preferred_element_type=jnp.float32), rate, key, places)
        dscores = (weights * (dweights - (weights * dweights).sum(-1, keepdims=True))).astype(d.dtype)
        dq = jnp.einsum("ulm,umd->uld", dscores, k) * _scale(q)
        dk = barrier(jnp.einsum("udl,ulm->udm", q.swapaxes(1, 2), dscores)).swapaxes(1, 2)
        return _put(found, jnp.stack([_by_token(x, size) for x in (dq, dk, dv)], axis=2), row, head)

    return _for_parts(size, qkv, put, jnp.zeros_like(qkv)), None, None, None


attend_chunked.defvjp(_forward, _backward)


def _for_parts(size: Part, qkv: jax.Array, put, start: jax.Array) -> jax.Array:
    """`put(array, row, head)` for the first row and head of every part, one after the other."""
    across = qkv.shape[3] // size.heads
    return lax.fori_loop(0, qkv.shape[0] // size.rows * across,
                         lambda i, array: put(array, i // across * size.rows, i % across * size.heads), start)


def _cut(x: jax.Array, size: Part, row: jax.Array, head: jax.Array) -> jax.Array:
    """The part of x [B, L, …, H, Dh] that begins at `row` and `head`: [R, L, …, G, Dh]."""
    middle = x.shape[1:-2]
    return lax.dynamic_slice(x, (row, *[0] * len(middle), head, 0), (size.rows, *middle, size.heads, x.shape[-1]))


def _put(x: jax.Array, part: jax.Array, row: jax.Array, head: jax.Array) -> jax.Array:
    """x [B, L, …, H, Dh] with `part` where `_cut` found it."""
    return lax.dynamic_update_slice(x, part, (row, *[0] * (x.ndim - 3), head, 0))


def _by_head(x: jax.Array) -> jax.Array:
    """[R, L, G, Dh] → [U, L, Dh], U = R G."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _by_token(x: jax.Array, size: Part) -> jax.Array:
    """[U, L, Dh] → [R, L, G, Dh]."""
    return x.reshape(*size, *x.shape[1:]).swapaxes(1, 2)


def _scale(q: jax.Array) -> jax.Array:
    return jnp.asarray(q.shape[-1] ** -0.5, q.dtype)


def _factors(qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[R, L, 3, G, Dh] → scaled queries, keys, values: [U, L, Dh]."""
    q, k, v = (_by_head(qkv[:, :, i]) for i in range(3))
    return q * _scale(q), k, v


def _weights(q: jax.Array, k: jax.Array, segment_ids: jax.Array, size: Part, row: jax.Array) -> jax.Array:
    """Softmax over the tokens of the same segment, [U, L, L] float32, of the part that begins at `row`."""
    length = q.shape[1]
    ids = lax.dynamic_slice(segment_ids, (row, 0), (size.rows, length))
    bias = jnp.where(ids[:, :, None] == ids[:, None, :], jnp.float32(0), jnp.float32(-1e9))
    bias = jnp.broadcast_to(bias[:, None], (*size, length, length)).reshape(-1, length, length)
    return jax.nn.softmax(jnp.einsum("uld,umd->ulm", q, k, preferred_element_type=jnp.float32) + bias, axis=-1)


def _numbers(numbers: jax.Array, size: Part, row: jax.Array, head: jax.Array, length: int) -> jax.Array:
    """[U, L] uint32: the number of each of the part's rows of scores among all of [B, H, L]."""
    mine = lax.dynamic_slice(numbers, (row, head), size).reshape(-1, 1)
    return mine * jnp.uint32(length) + lax.iota(jnp.uint32, length)[None]
