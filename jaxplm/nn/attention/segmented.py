"""Flash attention that reads only the keys of a query's own segment: the kernel for packed rows on an NVIDIA GPU (Triton, by Pallas).

A block of queries meets the blocks of keys from the first token of its first segment to the last token of its last one. So the cost
grows with the lengths of the texts, not with the length of the row. Queries, keys and values are read from the one array in which a
product has left them, and their gradients are written to one array, so nothing is split or joined on the way.

Shapes: B rows, L tokens per row, H heads, Dh width of a head, T tokens of a block.
"""

import math
from collections.abc import Callable
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


FORWARD = Sizes(64, 64, 4, 3)
BACKWARD = Sizes(64, 64, 4, 3)
SHORT_THERE = 32  # `there` where most texts are short: a block of 64 reaches too far beyond them
_Q, _K, _V = range(3)  # places in the array of queries, keys and values
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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def attend_segmented(qkv: jax.Array, bounds: Bounds, interpret: bool = False, short: bool = False) -> jax.Array:
    """Return the same as `attention.plain.attend_plain` without dropout (Dao 2023, FlashAttention-2).

    Args:
      qkv: queries, keys and values, [B, L, 3, H, Dh].
      bounds: of the segments.
      interpret: runs the kernels without a GPU, for tests.
      short: divides the work as is best for short texts; the result is the same.

    Returns:
      [B, L, H, Dh].
    """
    return _forward(qkv, bounds, interpret, short)[0]


def _forward(qkv, bounds, interpret, short):
    rows, length, _, heads, width = qkv.shape
    mixed, log_sums = _call(_forward_kernel, _sizes(FORWARD, short), qkv, interpret, [
        jax.ShapeDtypeStruct((rows, length, heads, width), qkv.dtype),
        jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)])(qkv, *bounds)
    return mixed, (qkv, bounds, mixed, log_sums)


def _backward(interpret, short, saved, dmixed):
    qkv, bounds, mixed, log_sums = saved
    # The weights' part of the softmax's gradient: one number per query (Dao et al. 2022, appendix B.2).
    dots = jnp.einsum("blhd,blhd->bhl", dmixed.astype(jnp.float32), mixed.astype(jnp.float32))
    dqkv, = _call(_backward_kernel, _sizes(BACKWARD, short), qkv, interpret, [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)])(
        qkv, *bounds, dmixed, log_sums, dots)
    return dqkv, None


attend_segmented.defvjp(_forward, _backward)


def _sizes(sizes: Sizes, short: bool) -> Sizes:
    return sizes._replace(there=SHORT_THERE) if short else sizes


def _call(kernel: Any, sizes: Sizes, qkv: jax.Array, interpret: bool, out_shape: list[jax.ShapeDtypeStruct]) -> Any:
    """Return the `pallas_call` of a kernel that runs once per row, head and block of tokens."""
    rows, length, _, heads, width = qkv.shape
    compiler = triton.CompilerParams(num_warps=sizes.warps, num_stages=sizes.stages)
    how: dict[str, Any] = {"interpret": True} if interpret else {"compiler_params": compiler}
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

    def _vectors(self, ref: Any, which: int | None) -> tuple[Any, jax.Array | None]:
        """Return the part [T, Dh] of a reference [B, L, H, Dh] or [B, L, 3, H, Dh], and which of it is inside the row."""
        inside, width = self._inside(), ref.shape[-1]
        places, columns = self.places()[:, None], lax.iota(jnp.int32, width)[None]
        part = ref.at[self.row, places, self.head, columns] if which is None else ref.at[self.row, places, which, self.head, columns]
        return part, None if inside is None else jnp.broadcast_to(inside[:, None], (self.size, width))

    def vectors(self, ref: Any, which: int | None = None) -> jax.Array:
        """Return [T, Dh] of a reference [B, L, H, Dh], or of the queries, keys or values of one [B, L, 3, H, Dh]."""
        part, mask = self._vectors(ref, which)
        return triton.load(part, mask=mask, other=None if mask is None else 0.0)

    def write(self, ref: Any, value: jax.Array, which: int | None = None) -> None:
        part, mask = self._vectors(ref, which)
        triton.store(part, value.astype(ref.dtype), mask=mask)

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
        begin, end = (triton.load(ref.at[self.row, self.places()], mask=inside, other=other) for ref in (begin_ref, end_ref))
        return begin, end

    def partners(self, size: int, begin_ref: Any, end_ref: Any) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Return the edges of three ranges of blocks of `size` tokens, the numbers of their first blocks and of the one after the last.

        The first and the last range have a token of the same segments; in the middle one, all tokens are of the segment of all of these.
        """
        first, last = self.first, jnp.minimum(self.first + self.size, self.length) - 1
        begin, end = begin_ref[self.row, first] // size, (end_ref[self.row, last] + size - 1) // size
        # These tokens are of one segment only if that of the last begins before that of the first ends.
        inner_begin = jnp.minimum((begin_ref[self.row, last] + size - 1) // size, end)
        inner_end = jnp.clip(end_ref[self.row, first] // size, inner_begin, end)
        return begin, inner_begin, inner_end, end

    def block(self, number: Any, size: int) -> "_Tokens":
        """Return a block of `size` tokens of the same row and head."""
        return self._replace(first=number * size, size=size)


def _here(sizes: Sizes, length: int) -> _Tokens:
    return _Tokens(pl.program_id(2), pl.program_id(1), pl.program_id(0) * sizes.here, sizes.here, length)


def _over_partners(edges: tuple[jax.Array, ...], add_block: Callable[..., Any], state: Any) -> Any:
    """Return the state after `add_block(number, state, masked)` for all blocks of `_Tokens.partners`."""
    begin, inner_begin, inner_end, end = edges
    state = lax.fori_loop(begin, inner_begin, partial(add_block, masked=True), state)
    state = lax.fori_loop(inner_begin, inner_end, partial(add_block, masked=False), state)
    return lax.fori_loop(inner_end, end, partial(add_block, masked=True), state)


def _product(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Contract an axis of a with an axis of b, in float32; float32 factors are not rounded."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def _within(places: jax.Array, begin: jax.Array, end: jax.Array) -> jax.Array:
    """Return which of the places are in the segment of each token, [T, places]."""
    return (places[None] >= begin[:, None]) & (places[None] < end[:, None])


def _forward_kernel(qkv_ref, begin_ref, end_ref, mixed_ref, log_sums_ref, *, scale: float, sizes: Sizes) -> None:
    here = _here(sizes, qkv_ref.shape[1])
    q = here.vectors(qkv_ref, _Q)
    begin, end = here.bounds(begin_ref, end_ref)

    def add_block(block: Any, state: tuple[jax.Array, jax.Array, jax.Array], masked: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        total, highest, mixed = state
        there = here.block(block, sizes.there)
        scores = _product(q, there.vectors(qkv_ref, _K), 1, 1) * (scale * _LOG2_E)
        if masked:
            scores = jnp.where(_within(there.places(), begin, end), scores, _MASKED)
        new_highest = jnp.maximum(highest, scores.max(1))
        fade = lax.exp2(highest - new_highest)
        weights = lax.exp2(scores - new_highest[:, None])
        v = there.vectors(qkv_ref, _V)
        mixed = mixed * fade[:, None] + _product(weights.astype(v.dtype), v, 1, 0)
        return total * fade + weights.sum(1), new_highest, mixed

    start = (jnp.zeros((sizes.here,), jnp.float32), jnp.full((sizes.here,), _MASKED, jnp.float32), jnp.zeros(q.shape, jnp.float32))
    total, highest, mixed = _over_partners(here.partners(sizes.there, begin_ref, end_ref), add_block, start)
    here.write(mixed_ref, mixed / total[:, None])
    here.write_numbers(log_sums_ref, highest + jnp.log2(total))


def _backward_kernel(qkv_ref, begin_ref, end_ref, dmixed_ref, log_sums_ref, dots_ref, dqkv_ref, *, scale: float, sizes: Sizes) -> None:
    """Write the gradients of a block's keys and values, from all queries of its segments, then those of its queries, from all keys.

    Scores are recomputed in both parts. In the first they are transposed, [keys, queries], so that no factor of a product is.
    """
    here = _here(sizes, qkv_ref.shape[1])
    q, k, v = (here.vectors(qkv_ref, which) for which in (_Q, _K, _V))
    begin, end = here.bounds(begin_ref, end_ref)
    partners = here.partners(sizes.there, begin_ref, end_ref)

    def add_queries(block: Any, state: tuple[jax.Array, jax.Array], masked: bool) -> tuple[jax.Array, jax.Array]:
        dk, dv = state
        there = here.block(block, sizes.there)
        their_q, dmixed = there.vectors(qkv_ref, _Q), there.vectors(dmixed_ref)
        weights = lax.exp2(_product(k, their_q, 1, 1) * (scale * _LOG2_E) - there.numbers(log_sums_ref)[None])
        if masked:
            weights = jnp.where(_within(there.places(), begin, end), weights, 0.0)
        dv = dv + _product(weights.astype(dmixed.dtype), dmixed, 1, 0)
        dscores = weights * (_product(v, dmixed, 1, 1) - there.numbers(dots_ref)[None])
        return dk + _product(dscores.astype(their_q.dtype), their_q, 1, 0), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = _over_partners(partners, add_queries, (zeros, zeros))
    here.write(dqkv_ref, dk * scale, _K)
    here.write(dqkv_ref, dv, _V)
    dmixed, log_sums, dots = here.vectors(dmixed_ref), here.numbers(log_sums_ref), here.numbers(dots_ref)

    def add_keys(block: Any, dq: jax.Array, masked: bool) -> jax.Array:
        there = here.block(block, sizes.there)
        their_k = there.vectors(qkv_ref, _K)
        weights = lax.exp2(_product(q, their_k, 1, 1) * (scale * _LOG2_E) - log_sums[:, None])
        if masked:
            weights = jnp.where(_within(there.places(), begin, end), weights, 0.0)
        dscores = weights * (_product(dmixed, there.vectors(qkv_ref, _V), 1, 1) - dots[:, None])
        return dq + _product(dscores.astype(their_k.dtype), their_k, 1, 0)

    here.write(dqkv_ref, _over_partners(partners, add_keys, zeros) * scale, _Q)
