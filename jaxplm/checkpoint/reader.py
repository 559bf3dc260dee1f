"""Read the arrays of a checkpoint onto any mesh, by TensorStore.

Orbax writes them; its own restore is not used. Measured with 0.12.8, `CheckpointManager.restore` (PyTreeRestore),
`StandardCheckpointer.restore` and `v1.load` return the same bits on any mesh and notice damaged files, but:

- After a read that failed, others continue without their event loop, and print tracebacks (`RuntimeError: Event loop is closed`)
  some time after the run has fallen back to an older checkpoint.
- In a run of several processes of which one cannot read its part, the others wait. `CheckpointManager.restore` ends all
  processes (the failed one's next collective meets the barrier of the others); `v1.load` returns after its barrier's timeout of
  300 s. Here every process learns at once that one has failed (`manager`), and all fall back together.

The price is that this file knows the layout that Orbax writes: an OCDBT store of zarr arrays under the paths of the leaves.
`tests/test_checkpoint.py` reads what the installed release wrote, so a change of the layout fails there.
"""

from collections import deque
from pathlib import Path
from typing import Any

import jax
import tensorstore as ts
from jax.sharding import SingleDeviceSharding

from jaxplm.checkpoint.manifest import Damaged

_AHEAD = 8  # arrays that are being read while one is put on the devices


def target(leaf: Any) -> jax.ShapeDtypeStruct:
    """Return shape, dtype and sharding to restore onto; the first local device where no sharding is given."""
    sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def read_arrays(folder: Path, targets: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Return the arrays of Orbax's store; each process reads what its devices hold.

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
    """Start reading the parts that local devices hold: once for each part, however many devices share it."""
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
