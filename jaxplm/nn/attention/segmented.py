"""Flash attention that reads only the keys of a query's own segment: the kernel for rows of many texts on an NVIDIA GPU.

A block of queries meets the blocks of keys from the first token of its first segment to the last token of its last one. So the cost
grows with the lengths of the texts, not with the length of the row.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


class Sizes(NamedTuple):
    """How a kernel is divided; chosen by measurement (`benchmarks/kernel_times.py`).

    Attributes:
      here: tokens per program.
      there: tokens per turn of its loop over the partners.
      warps: per program.
      stages: turns of the loop of which the loads are in flight.
    """

    here: int
    there: int
    warps: int
    stages: int


FORWARD = Sizes(64, 64, 4, 2)
QUERIES = Sizes(64, 64, 4, 2)  # the gradient of the queries
KEYS = Sizes(64, 64, 4, 2)  # the gradients of keys and values
_LOG2_E = math.log2(math.e)
_MASKED = -1e30  # a score outside of the segment; finite, so that a fully masked block gives no NaN


class Bounds(NamedTuple):
    """For each token, the first token of its segment and the one after the last, [B, L] int32 each."""

    begin: jax.Array
    end: jax.Array


def bounds_of(segment_ids: jax.Array) -> Bounds:
    """Return the bounds of the runs of equal ids [B, L]. Padding is a run too."""
    length = segment_ids.shape[1]
    place = lax.broadcasted_iota(jnp.int32, segment_ids.shape, 1)
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    begins = jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    ends = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
    return Bounds(lax.cummax(jnp.where(begins, place, 0), axis=1),
                  lax.cummin(jnp.where(ends, place + 1, length), axis=1, reverse=True))


def segmented_lacks(head_width: int) -> str:
    """Return why the kernel does not support such heads; "" if it does."""
    if head_width < 16 or head_width & (head_width - 1) or head_width > 128:
        return "the kernel for packed rows supports head widths 16, 32, 64 and 128"
    return ""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_segmented(q: jax.Array, k: jax.Array, v: jax.Array, bounds: Bounds, interpret: bool = False) -> jax.Array:
    """Return the same as `attention.plain.attend_plain` without dropout (Dao 2023, FlashAttention-2).

    q, k, v: [B, L, H, Dh] → [B, L, H, Dh]. `interpret` runs the kernels without a GPU, for tests.
    """
    return _forward(q, k, v, bounds, interpret)[0]


def _forward(q, k, v, bounds, interpret):
    rows, length, heads, _ = q.shape
    mixed, log_sums = _call(_forward_kernel, FORWARD, q, interpret, [
        jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)])(q, k, v, *bounds)
    return mixed, (q, k, v, bounds, mixed, log_sums)


def _backward(interpret, saved, dmixed):
    q, k, v, bounds, mixed, log_sums = saved
    # The weights' part of the softmax's gradient: one number per query (Dao et al. 2022, appendix B.2).
    dot = jnp.einsum("blhd,blhd->bhl", dmixed.astype(jnp.float32), mixed.astype(jnp.float32))
    like = jax.ShapeDtypeStruct(q.shape, q.dtype)
    dk, dv = _call(_keys_kernel, KEYS, q, interpret, [like, like])(q, k, v, *bounds, dmixed, log_sums, dot)
    dq, = _call(_queries_kernel, QUERIES, q, interpret, [like])(q, k, v, *bounds, dmixed, log_sums, dot)
    return dq, dk, dv, None


attend_segmented.defvjp(_forward, _backward)


def _call(kernel: Any, sizes: Sizes, q: jax.Array, interpret: bool, out_shape: list[jax.ShapeDtypeStruct]) -> Any:
    """Return the `pallas_call` of a kernel that runs once per row, head and block of tokens."""
    rows, length, heads, width = q.shape
    how = {"interpret": True} if interpret else {"compiler_params": triton.CompilerParams(num_warps=sizes.warps, num_stages=sizes.stages)}
    return pl.pallas_call(partial(kernel, scale=width**-0.5, sizes=sizes), grid=(pl.cdiv(length, sizes.here), heads, rows),
                          out_shape=out_shape, name=f"attend_segmented{kernel.__name__}", **how)


class _Tokens(NamedTuple):
    """T tokens of a head of a row, of which those beyond the row's end are masked."""

    row: Any
    head: Any
    first: Any
    size: int
    length: int

    def places(self) -> jax.Array:
        return self.first + lax.iota(jnp.int32, self.size)

    def _inside(self) -> jax.Array | None:
        return self.places() < self.length if self.length % self.size else None

    def vectors(self, ref: Any) -> jax.Array:
        """Return [T, Dh] of ref [B, L, H, Dh]."""
        inside, width = self._inside(), ref.shape[-1]
        mask = None if inside is None else jnp.broadcast_to(inside[:, None], (self.size, width))
        return triton.load(ref.at[self.row, self.places()[:, None], self.head, lax.iota(jnp.int32, width)[None]], mask=mask,
                           other=None if mask is None else 0.0)

    def write(self, ref: Any, value: jax.Array) -> None:
        inside, width = self._inside(), ref.shape[-1]
        mask = None if inside is None else jnp.broadcast_to(inside[:, None], (self.size, width))
        triton.store(ref.at[self.row, self.places()[:, None], self.head, lax.iota(jnp.int32, width)[None]], value.astype(ref.dtype),
                     mask=mask)

    def numbers(self, ref: Any) -> jax.Array:
        """Return [T] of ref [B, H, L]."""
        inside = self._inside()
        return triton.load(ref.at[self.row, self.head, self.places()], mask=inside, other=None if inside is None else 0.0)

    def write_numbers(self, ref: Any, value: jax.Array) -> None:
        triton.store(ref.at[self.row, self.head, self.places()], value, mask=self._inside())

    def bounds(self, begin_ref: Any, end_ref: Any) -> tuple[jax.Array, jax.Array]:
        """Return the first and the last token of each token's segment, [T] int32; of those beyond the row, an empty segment."""
        inside = self._inside()
        other = None if inside is None else 0
        return tuple(triton.load(ref.at[self.row, self.places()], mask=inside, other=other) for ref in (begin_ref, end_ref))

    def partners(self, size: int, begin_ref: Any, end_ref: Any) -> tuple[jax.Array, jax.Array]:
        """Return the numbers of the first block of `size` tokens that has one of the same segments, and of the one after the last."""
        last = jnp.minimum(self.first + self.size, self.length) - 1
        return begin_ref[self.row, self.first] // size, (end_ref[self.row, last] + size - 1) // size

    def block(self, number: Any, size: int) -> "_Tokens":
        """Return a block of `size` tokens of the same row and head."""
        return self._replace(first=number * size, size=size)


def _here(q_ref: Any, sizes: Sizes) -> _Tokens:
    return _Tokens(pl.program_id(2), pl.program_id(1), pl.program_id(0) * sizes.here, sizes.here, q_ref.shape[1])


def _product(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Contract an axis of a with an axis of b, in float32; float32 factors are not rounded."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def _forward_kernel(q_ref, k_ref, v_ref, begin_ref, end_ref, mixed_ref, log_sums_ref, *, scale: float, sizes: Sizes) -> None:
    here = _here(q_ref, sizes)
    q = here.vectors(q_ref)
    begin, end = here.bounds(begin_ref, end_ref)

    def add_block(block: Any, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        total, highest, mixed = state
        there = here.block(block, sizes.there)
        scores = _product(q, there.vectors(k_ref), 1, 1) * (scale * _LOG2_E)
        places = there.places()[None]
        scores = jnp.where((places >= begin[:, None]) & (places < end[:, None]), scores, _MASKED)
        new_highest = jnp.maximum(highest, scores.max(1))
        fade = lax.exp2(highest - new_highest)
        weights = lax.exp2(scores - new_highest[:, None])
        v = there.vectors(v_ref)
        mixed = mixed * fade[:, None] + _product(weights.astype(v.dtype), v, 1, 0)
        return total * fade + weights.sum(1), new_highest, mixed

    start = (jnp.zeros((sizes.here,), jnp.float32), jnp.full((sizes.here,), _MASKED, jnp.float32), jnp.zeros(q.shape, jnp.float32))
    total, highest, mixed = lax.fori_loop(*here.partners(sizes.there, begin_ref, end_ref), add_block, start)
    here.write(mixed_ref, mixed / total[:, None])
    here.write_numbers(log_sums_ref, highest + jnp.log2(total))


def _weights(q: jax.Array, k: jax.Array, log_sums: jax.Array, inside: jax.Array, scale: float) -> jax.Array:
    """Return the softmax's weights [queries, keys] float32 from the logarithms, to base 2, of its sums."""
    return jnp.where(inside, lax.exp2(_product(q, k, 1, 1) * (scale * _LOG2_E) - log_sums[:, None]), 0.0)


def _queries_kernel(q_ref, k_ref, v_ref, begin_ref, end_ref, dmixed_ref, log_sums_ref, dot_ref, dq_ref, *, scale: float, sizes: Sizes) -> None:
    here = _here(q_ref, sizes)
    q, dmixed = here.vectors(q_ref), here.vectors(dmixed_ref)
    log_sums, dot = here.numbers(log_sums_ref), here.numbers(dot_ref)
    begin, end = here.bounds(begin_ref, end_ref)

    def add_block(block: Any, dq: jax.Array) -> jax.Array:
        there = here.block(block, sizes.there)
        k, places = there.vectors(k_ref), there.places()[None]
        weights = _weights(q, k, log_sums, (places >= begin[:, None]) & (places < end[:, None]), scale)
        dscores = weights * (_product(dmixed, there.vectors(v_ref), 1, 1) - dot[:, None])
        return dq + _product(dscores.astype(k.dtype), k, 1, 0)

    dq = lax.fori_loop(*here.partners(sizes.there, begin_ref, end_ref), add_block, jnp.zeros(q.shape, jnp.float32))
    here.write(dq_ref, dq * scale)


def _keys_kernel(q_ref, k_ref, v_ref, begin_ref, end_ref, dmixed_ref, log_sums_ref, dot_ref, dk_ref, dv_ref, *, scale: float, sizes: Sizes) -> None:
    here = _here(q_ref, sizes)
    k, v = here.vectors(k_ref), here.vectors(v_ref)
    begin, end = here.bounds(begin_ref, end_ref)

    def add_block(block: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk, dv = state
        there = here.block(block, sizes.there)
        q, dmixed, places = there.vectors(q_ref), there.vectors(dmixed_ref), there.places()[:, None]
        weights = _weights(q, k, there.numbers(log_sums_ref), (places >= begin[None]) & (places < end[None]), scale)
        dv = dv + _product(weights.astype(dmixed.dtype), dmixed, 0, 0)
        dscores = weights * (_product(dmixed, v, 1, 1) - there.numbers(dot_ref)[:, None])
        return dk + _product(dscores.astype(q.dtype), q, 0, 0), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = lax.fori_loop(*here.partners(sizes.there, begin_ref, end_ref), add_block, (zeros, zeros))
    here.write(dk_ref, dk * scale)
    here.write(dv_ref, dv)
