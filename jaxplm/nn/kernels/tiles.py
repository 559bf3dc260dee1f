"""How the Triton kernels divide an array [M, W] into tiles, and read and write them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec as P

from jaxplm.nn.mesh_split import MeshSplit

WARP_COLUMNS = 256  # one warp reads so many bfloat16 values of a row at once: 16 bytes per thread
MOST_CHUNKS = 4  # of a row; each is a variable of its own in the kernel
LARGEST_WIDTH = 4096


class Sizes(NamedTuple):
    """How a kernel is divided into programs; chosen by measurement (`benchmarks/kernel_times.py`).

    Attributes:
      rows: of a tile.
      warps: per program.
      columns: of a tile; 0 if a tile has whole rows.
      programs: of a kernel in which each program goes over many tiles, to add something up.
    """

    rows: int
    warps: int
    columns: int = 0
    programs: int = 0


class Tile(NamedTuple):
    """A tile of an array [M, W]: R rows from `row`, C columns from `column`, of which those outside of the array are masked."""

    row: Any
    column: Any
    rows: int
    columns: int

    def indices(self) -> tuple[jax.Array, jax.Array]:
        """Return the tile's places in the array, [R, 1] and [1, C] int32."""
        return (self.row + lax.broadcasted_iota(jnp.int32, (self.rows, 1), 0),
                self.column + lax.broadcasted_iota(jnp.int32, (1, self.columns), 1))

    def mask(self, shape: tuple[int, int], whole_rows: bool) -> jax.Array | None:
        """Return which places are inside of an array of `shape`, broadcast to [R, C]; None if all are.

        `whole_rows` says that no tile of this kernel reaches beyond the last row.
        """
        rows, columns = self.indices()
        masks = [] if whole_rows else [rows < shape[0]]
        if shape[1] % self.columns:
            masks.append(columns < shape[1])
        if not masks:
            return None
        return jnp.broadcast_to(masks[0] if len(masks) == 1 else masks[0] & masks[1], (self.rows, self.columns))


def chunk_columns(width: int) -> int:
    """Return the columns of a chunk of a row: a power of two, at most MOST_CHUNKS of which make up a row of `width`."""
    columns = min(max(width & -width, 128), WARP_COLUMNS)
    while pl.cdiv(width, columns) > MOST_CHUNKS:
        columns *= 2
    return columns


def load_rows(ref: Any, tile: Tile, whole_rows: bool) -> jax.Array:
    """Return a tile of `ref` [M, W] as float32 [R, C], with 0 outside of the array."""
    mask = tile.mask(ref.shape, whole_rows)
    other = None if mask is None else 0.0
    return triton.load(ref.at[*tile.indices()], mask=mask, other=other).astype(jnp.float32)


def store_rows(ref: Any, tile: Tile, value: jax.Array, whole_rows: bool) -> None:
    """Write [R, C] to a tile of `ref` [M, W]."""
    triton.store(ref.at[*tile.indices()], value.astype(ref.dtype), mask=tile.mask(ref.shape, whole_rows))


def load_columns(ref: Any, column: Any, columns: int) -> jax.Array:
    """Return C values of the vector `ref` [W] from `column` on as float32 [1, C], with 0 beyond its end."""
    places = column + lax.broadcasted_iota(jnp.int32, (1, columns), 1)
    mask = places < ref.shape[0] if ref.shape[0] % columns else None
    return triton.load(ref.at[places], mask=mask, other=None if mask is None else 0.0).astype(jnp.float32)


def compiler_params(warps: int, interpret: bool) -> dict[str, Any]:
    """Return the arguments of `pallas_call` that choose the Triton compiler, or the interpreter (any device, for tests)."""
    return {"interpret": True} if interpret else {"compiler_params": triton.CompilerParams(num_warps=warps, num_stages=1)}


def over_mesh(function: Callable[..., Any], split: MeshSplit | None, arguments: str, results: str) -> Callable[..., Any]:
    """Return `function` so that each device runs it on its own part, which XLA cannot arrange for a kernel by itself.

    `function` is called with the number of the device's part of the rows before its arguments, uint32. A letter says how an argument
    or a result is split:

    - "r": [M, ...], by rows;
    - "t": [M, F], by rows, and by columns over the axis of tensor parallelism;
    - "c": [F], by columns over that axis; as a result, summed over the rows of all devices;
    - "w": whole on every device; as a result, summed over the rows of all devices.
    """
    if split is None:
        return lambda *args: function(jnp.uint32(0), *args)
    specs = {"r": P(split.rows), "t": P(split.rows, split.heads), "c": P(split.heads), "w": P()}

    def on_device(*args: Any) -> Any:
        found = function(lax.axis_index(split.rows).astype(jnp.uint32), *args)
        return tuple(lax.psum(result, split.rows) if how in "cw" else result for result, how in zip(found, results, strict=True))

    # The kernels' outputs do not say over which axes they vary, so that cannot be checked.
    return jax.shard_map(on_device, mesh=split.mesh, in_specs=tuple(specs[how] for how in arguments),
                         out_specs=tuple(specs[how] for how in results), check_vma=False)
