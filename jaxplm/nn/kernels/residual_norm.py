"""Bias, dropout, residual sum and LayerNorm in one pass over the activations, forward and backward."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from jaxplm.nn.dropout import keep
from jaxplm.nn.kernels.tiles import Sizes, Tile, chunk_columns, compiler_params, load_columns, load_rows, over_mesh, store_rows
from jaxplm.nn.mesh_split import MeshSplit

# One warp per row, so that a row's sums need no shared memory.
FORWARD = Sizes(rows=1, warps=1)
BACKWARD = Sizes(rows=1, warps=1, programs=1056)


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8, 9))
def residual_norm(x: jax.Array, y: jax.Array, y_bias: jax.Array, key_words: jax.Array, scale: jax.Array, shift: jax.Array,
                  rate: float, eps: float, split: MeshSplit | None, interpret: bool) -> jax.Array:
    """Return LayerNorm(x + dropout(y + y_bias)), [M, D] in x's type, computed in float32.

    The sum is kept for the backward pass in x's type; the mask of dropout is recomputed from the key.

    Args:
      x, y: [M, D], D at most LARGEST_WIDTH.
      y_bias: [D], of the product that gave y.
      key_words: [2] uint32 of dropout's key; not read if `rate` is 0.
      scale, shift: [D] float32, of the LayerNorm.
      rate: dropout's.
      eps: of the LayerNorm.
      split: the mesh that splits the rows; None on one device.
      interpret: runs the kernels without a GPU, for tests.
    """
    return _forward(x, y, y_bias, key_words, scale, shift, rate, eps, split, interpret)[0]


def _forward(x, y, y_bias, key_words, scale, shift, rate, eps, split, interpret):
    def on_device(part, x, y, y_bias, key_words, scale, shift):
        (rows, width), columns = x.shape, chunk_columns(x.shape[1])
        first = (part * jnp.uint32(rows)).reshape(1)
        return pl.pallas_call(
            partial(_forward_kernel, rate=rate, eps=eps, size=FORWARD.rows, columns=columns), grid=(pl.cdiv(rows, FORWARD.rows),),
            out_shape=[jax.ShapeDtypeStruct((rows, width), x.dtype)] * 2 + [jax.ShapeDtypeStruct((rows, 1), jnp.float32)] * 2,
            name="residual_norm", **compiler_params(FORWARD.warps, interpret))(first, key_words, x, y, y_bias, scale, shift)

    mapped = over_mesh(on_device, split, "rrwwww", "rrrr")
    normed, total, mean, inverse = mapped(x, y, y_bias, key_words, scale, shift)
    return normed, (total, mean, inverse, key_words, scale, y_bias)


def _backward(rate, eps, split, interpret, saved, dnormed):
    del eps
    total, mean, inverse, key_words, scale, y_bias = saved

    def on_device(part, dnormed, total, mean, inverse, key_words, scale):
        (rows, width), columns = total.shape, chunk_columns(total.shape[1])
        first = (part * jnp.uint32(rows)).reshape(1)
        programs = min(BACKWARD.programs, pl.cdiv(rows, BACKWARD.rows))
        like_rows = jax.ShapeDtypeStruct((rows, width), total.dtype)
        found = pl.pallas_call(
            partial(_backward_kernel, rate=rate, size=BACKWARD.rows, columns=columns), grid=(programs,),
            out_shape=[like_rows] * (2 if rate else 1) + [jax.ShapeDtypeStruct((programs * 3, width), jnp.float32)],
            name="residual_norm_backward", **compiler_params(BACKWARD.warps, interpret))(
                first, key_words, dnormed, total, mean, inverse, scale)
        dx, dy, vectors = found if rate else (found[0], *found)
        return dx, dy, vectors.reshape(programs, 3, width).sum(0)

    mapped = over_mesh(on_device, split, "rrrrww", "rrw")
    dx, dy, vectors = mapped(dnormed, total, mean, inverse, key_words, scale)
    dscale, dshift, dy_bias = vectors
    return dx, dy, dy_bias.astype(y_bias.dtype), None, dscale, dshift


residual_norm.defvjp(_forward, _backward)


def _forward_kernel(first_ref, key_ref, x_ref, y_ref, bias_ref, scale_ref, shift_ref, normed_ref, sum_ref, mean_ref, inverse_ref, *,
                    rate: float, eps: float, size: int, columns: int) -> None:
    rows, width = x_ref.shape
    whole = rows % size == 0
    row = pl.program_id(0) * size
    tiles = [Tile(row, column, size, columns) for column in range(0, width, columns)]
    sums = []
    for tile in tiles:
        y = load_rows(y_ref, tile, whole) + load_columns(bias_ref, tile.column, columns)
        y = _dropped(y, tile, first_ref, key_ref, rate)
        total = (load_rows(x_ref, tile, whole) + y).astype(sum_ref.dtype)
        store_rows(sum_ref, tile, total, whole)
        sums.append(_inside(total.astype(jnp.float32), tile, width))
    mean = _row_sum(sums) / width
    centred = [_inside(total - mean, tile, width) for total, tile in zip(sums, tiles, strict=True)]
    inverse = lax.rsqrt(_row_sum([part * part for part in centred]) / width + eps)
    for part, tile in zip(centred, tiles, strict=True):
        scaled = part * inverse * load_columns(scale_ref, tile.column, columns) + load_columns(shift_ref, tile.column, columns)
        store_rows(normed_ref, tile, scaled, whole)
    per_row = Tile(row, 0, size, 1)
    store_rows(mean_ref, per_row, mean, whole)
    store_rows(inverse_ref, per_row, inverse, whole)


def _backward_kernel(first_ref, key_ref, dnormed_ref, sum_ref, mean_ref, inverse_ref, scale_ref, dx_ref, *rest,
                     rate: float, size: int, columns: int) -> None:
    """Ba et al. 2016: with n the normalised row and g = dnormed · scale, dx = inverse (g - mean(g) - n mean(g n))."""
    dy_ref, vectors_ref = rest if rate else (None, *rest)
    rows, width = sum_ref.shape
    whole = rows % size == 0
    program, programs = pl.program_id(0), pl.num_programs(0)
    starts = range(0, width, columns)

    def add_rows(turn: Any, vectors: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row = (program + turn * programs) * size
        per_row = Tile(row, 0, size, 1)
        mean, inverse = load_rows(mean_ref, per_row, whole), load_rows(inverse_ref, per_row, whole)
        tiles = [Tile(row, column, size, columns) for column in starts]
        dnormed = [load_rows(dnormed_ref, tile, whole) for tile in tiles]
        normed = [(load_rows(sum_ref, tile, whole) - mean) * inverse for tile in tiles]
        scaled = [d * load_columns(scale_ref, tile.column, columns) for d, tile in zip(dnormed, tiles, strict=True)]
        scaled_mean = _row_sum(scaled) / width
        slope = _row_sum([g * n for g, n in zip(scaled, normed, strict=True)]) / width
        added = []
        for tile, d, n, g in zip(tiles, dnormed, normed, scaled, strict=True):
            dx = inverse * (g - scaled_mean - n * slope)
            store_rows(dx_ref, tile, dx, whole)
            dy = _dropped(dx, tile, first_ref, key_ref, rate)
            if dy_ref is not None:
                store_rows(dy_ref, tile, dy, whole)
            added += [d * n, d, _inside(dy, tile, width)]
        return tuple(total + new for total, new in zip(vectors, added, strict=True))

    zeros = (jnp.zeros((size, columns), jnp.float32),) * (3 * len(starts))
    turns = (pl.cdiv(rows, size) - program + programs - 1) // programs
    vectors = lax.fori_loop(0, turns, add_rows, zeros)
    for index, column in enumerate(starts):
        for which in range(3):  # of scale, of shift, of the bias
            tile = Tile(program * 3 + which, column, 1, columns)
            store_rows(vectors_ref, tile, vectors[3 * index + which].sum(0, keepdims=True), True)


def _dropped(y: jax.Array, tile: Tile, first_ref: Any, key_ref: Any, rate: float) -> jax.Array:
    """Apply dropout to a tile of the rows that begin at `first_ref` of the whole batch."""
    if not rate:
        return y
    rows, columns = tile.indices()
    mask = keep(first_ref[0] + rows.astype(jnp.uint32), columns.astype(jnp.uint32), key_ref[0], key_ref[1], rate)
    return jnp.where(mask, y * (1 / (1 - rate)), 0.0)


def _inside(value: jax.Array, tile: Tile, width: int) -> jax.Array:
    """Return the tile with 0 beyond the last column."""
    if width % tile.columns == 0:
        return value
    return jnp.where(tile.indices()[1] < width, value, 0.0)


def _row_sum(tiles: list[jax.Array]) -> jax.Array:
    """Return the sums of the rows over all tiles, [R, 1]."""
    return reduce(jnp.add, [tile.sum(1, keepdims=True) for tile in tiles])
