"""Meshes, and how parameters and batches are split over them: ordered rules over parameter paths."""

import re
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxplm.config import Mesh as MeshConfig
from jaxplm.devices.processes import is_alone
from jaxplm.errors import UserError
from jaxplm.nn.paths import path_name

T = TypeVar("T")

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))  # rows are split over both; the tensor axis sees the same rows

# First match wins. Stacked block leaves have the layer axis first; it is never split.
# `tensor` splits heads, feed-forward and vocabulary; `fsdp` splits another large axis of the same leaf.
RULES: tuple[tuple[str, P], ...] = (
    (r"encoder/(embeddings|extension)/word$", P("tensor", "fsdp")),
    (r"encoder/embeddings/(position|token_type)$", P(None, "fsdp")),
    (r"encoder/(extension/)?blocks/attention/qkv/kernel$", P(None, "fsdp", None, "tensor", None)),
    (r"encoder/(extension/)?blocks/attention/qkv/bias$", P(None, None, "tensor", None)),
    (r"encoder/(extension/)?blocks/attention/out/kernel$", P(None, "tensor", None, "fsdp")),
    (r"encoder/(extension/)?blocks/mlp/up/kernel$", P(None, "fsdp", "tensor")),
    (r"encoder/(extension/)?blocks/mlp/up/bias$", P(None, "tensor")),
    (r"encoder/(extension/)?blocks/mlp/down/kernel$", P(None, "tensor", "fsdp")),
    (r"encoder/(extension/)?blocks/(attention/out|mlp/down)/bias$", P()),
    (r"encoder/extension/blocks/gate/kernel$", P(None, "fsdp")),
    (r"encoder/extension/blocks/gate/bias$", P()),
    (r"(pooler|mlm_head/dense)/kernel$", P("fsdp", None)),
    (r"(pooler|mlm_head/dense)/bias$", P()),
    (r"pair_head/out/kernel$", P("fsdp", None)),
    (r"pair_head/out/bias$", P()),
    (r"mlm_(head|extension)/bias$", P("tensor")),
    (r"head/(dense|out)/kernel$", P("fsdp", None)),  # of a task; C and the LSTM's h may be any number, so they stay whole
    (r"head/(dense|out)/bias$", P()),
    (r"head/mix/(weights|gamma)$", P()),
    (r"head/body/kernel$", P("fsdp", None, None, None)),
    (r"head/body/(recurrent|bias)$", P()),  # a split one would be gathered at every token
    (r"head/body/attention/qkv/kernel$", P(None, "fsdp", None, "tensor", None)),
    (r"head/body/attention/qkv/bias$", P(None, None, "tensor", None)),
    (r"head/body/attention/out/kernel$", P(None, "tensor", None, "fsdp")),
    (r"head/body/mlp/up/kernel$", P(None, "fsdp", "tensor")),
    (r"head/body/mlp/up/bias$", P(None, "tensor")),
    (r"head/body/mlp/down/kernel$", P(None, "tensor", "fsdp")),
    (r"head/body/(attention/out|mlp/down)/bias$", P()),
    (r".*/norm/(scale|bias)$", P()),
)


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> jax.sharding.Mesh:
    """Return a mesh of the axes data × fsdp × tensor over all devices; one size may be -1 and takes what is left.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) > 1:
        raise UserError(f"mesh {'×'.join(map(str, sizes))}: only one of mesh.data, mesh.fsdp, mesh.tensor may be -1")
    known = 1
    for size in sizes:
        known *= 1 if size == -1 else size
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise UserError(f"mesh.data={config.data}, mesh.fsdp={config.fsdp}, mesh.tensor={config.tensor}"
                        f" does not divide the {len(devices)} devices that are here")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def spec_of(name: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> P:
    """Return the partition of one parameter. Raises UserError for a path that no rule covers, and for an axis that does not divide."""
    spec = next((spec for pattern, spec in RULES if re.match(pattern, name)), None)
    if spec is None:
        raise UserError(f"no sharding rule covers the parameter {name}")
    for size, axis in zip(shape, spec, strict=False):  # a spec may leave the last dimensions out
        if axis and size % mesh.shape[axis]:
            raise UserError(f"mesh.{axis}={mesh.shape[axis]} does not divide the {size} of {name} {shape}")
    return spec


def param_shardings(params: Any, mesh: jax.sharding.Mesh) -> Any:
    """Return a tree of NamedSharding like `params` (arrays or ShapeDtypeStructs)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_of(path_name(path), leaf.shape, mesh)), params)


def state_shardings(state: T, params: Any, mesh: jax.sharding.Mesh) -> T:
    """Return a tree of NamedSharding like `state`, a whole TrainState.

    A leaf whose path ends in a parameter's path and which has its shape (Adam's moments) is split as that parameter is;
    scalars and keys are replicated. Raises UserError for anything else.
    """
    by_name = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        full = path_name(path)
        for name, shape in by_name.items():
            if full.endswith("/" + name) and leaf.shape == shape:
                return NamedSharding(mesh, spec_of(name, shape, mesh))
        if leaf.ndim <= 1 and leaf.size <= 4:
            return NamedSharding(mesh, P())
        raise UserError(f"no sharding rule covers the optimizer state {full} {leaf.shape}")

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of rows [B, ...] over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def row_shards(mesh: jax.sharding.Mesh) -> int:
    """Return into how many parts the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, accumulate: int, mesh: jax.sharding.Mesh) -> None:
    """Raise a UserError where a batch, or each of its `accumulate` parts, does not divide over the mesh."""
    if (batch_size // accumulate) % row_shards(mesh):
        raise UserError(f"train.batch_size={batch_size} in {accumulate} part(s) does not divide by the"
                        f" {row_shards(mesh)} row shards of the mesh (data × fsdp)")


def local_rows(batch_size: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """Return which of the B rows of a batch the devices of this process hold: [b] int64, ascending.

    None, if no device of the mesh belongs to this process: then a step can be lowered and not run.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    rows = np.zeros(batch_size, bool)
    for index in held.values():
        if index is not None:
            rows[index] = True
    return np.flatnonzero(rows)


def put_batch(batch: T, batch_size: int, mesh: jax.sharding.Mesh) -> T:
    """Place a batch of this process's rows (`local_rows`) on the mesh, as global arrays [batch_size, ...]."""
    placed = batch_sharding(mesh)
    if is_alone():
        return jax.device_put(batch, placed)
    mine = local_rows(batch_size, mesh)

    def build(local: np.ndarray) -> jax.Array:
        def rows(index: Any) -> np.ndarray:
            wanted = np.arange(batch_size)[index[0]]
            return local[np.searchsorted(mine, wanted)]
        return jax.make_array_from_callback((batch_size, *local.shape[1:]), placed, rows)

    return jax.tree.map(build, batch)


def abstract_batch(batch: T, batch_size: int, mesh: jax.sharding.Mesh) -> T:
    """Return the shapes, dtypes and shardings that `put_batch` would give a batch, as `jax.ShapeDtypeStruct`s."""
    placed = batch_sharding(mesh)
    return jax.tree.map(lambda local: jax.ShapeDtypeStruct((batch_size, *local.shape[1:]), local.dtype, sharding=placed), batch)


def place(leaf: Any, where: NamedSharding) -> jax.Array:
    """Lay an array that every process holds whole out over the mesh."""
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])
