"""Reads the arrays of a checkpoint onto any mesh."""

from collections import deque
from pathlib import Path
from typing import Any

import jax
import tensorstore as ts
from jax.sharding import SingleDeviceSharding

from jaxplm.checkpoint.manifest import Damaged

_AHEAD = 8  # arrays that are being read while one is put on the devices


def target(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding to restore onto; the first local device where no sharding is given."""
    sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def read_arrays(folder: Path, targets: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """The arrays of Orbax's store (zarr in OCDBT), each process reading what its devices hold.

    Read by TensorStore itself: Orbax's own restore leaves reads behind when one fails, which then print
    tracebacks, and it waits for processes that may have failed.

    Args:
      folder: of the item in a checkpoint.
      targets: path of an array -> shape, dtype and sharding.

    Raises:
      Damaged: an array is missing, unreadable, or of another shape or dtype.
    """
    store = {"driver": "ocdbt", "base": folder.as_uri() + "/"}
    context = ts.Context({"cache_pool": {"total_bytes_limit": 100_000_000}})
    opened = {
        path: ts.open(
            # A part that is missing is an error and not a block of zeros.
            {"driver": "zarr", "kvstore": {**store, "path": f"{path}/"}, "fill_missing_data_reads": False},
            open=True,
            read=True,
            context=context,
        )
        for path in targets
    }
    arrays: dict[str, jax.Array] = {}
    waiting: deque[tuple[str, dict[str, Any]]] = deque()

    def finish() -> None:
        path, parts = waiting.popleft()
        try:
            blocks = {index: part.result() for index, part in parts.items()}
        except (ValueError, OSError) as error:
            raise _unreadable(path, error) from error
        arrays[path] = jax.make_array_from_callback(targets[path].shape, targets[path].sharding, lambda index: blocks[str(index)])

    for path, wanted in targets.items():
        waiting.append((path, _begin(path, opened[path], wanted)))
        if len(waiting) > _AHEAD:
            finish()
    while waiting:
        finish()
    return arrays


def _begin(path: str, opening: Any, wanted: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Starts the reads of the parts that local devices hold: one for each part, however many devices share it."""
    try:
        source = opening.result()
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    if source.shape != wanted.shape or source.dtype.numpy_dtype != wanted.dtype:
        raise Damaged(f"{path} is {source.dtype.name}{list(source.shape)} on disk")
    indices = wanted.sharding.addressable_devices_indices_map(wanted.shape).values()
    return {key: source[index].read() for key, index in {str(index): index for index in indices}.items()}


def _unreadable(path: str, error: Exception) -> Damaged:
    return Damaged(f"{path} cannot be read: {str(error).split(':')[0]}")
