"""Meshes, and which parameter lies where: ordered rules over parameter paths."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxplm.config import Mesh as MeshConfig
from jaxplm.errors import UserError
from jaxplm.nn.paths import path_name

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
    """A mesh of the axes data × fsdp × tensor over all devices; one size may be -1 and takes what is left.

    Raises UserError where the sizes do not multiply to the number of devices.
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
    """The partition of one parameter. An uncovered path or an axis that does not divide is an error."""
    spec = next((spec for pattern, spec in RULES if re.match(pattern, name)), None)
    if spec is None:
        raise UserError(f"no sharding rule covers the parameter {name}")
    for size, axis in zip(shape, spec, strict=False):  # a spec may leave the last dimensions out
        if axis and size % mesh.shape[axis]:
            raise UserError(f"mesh.{axis}={mesh.shape[axis]} does not divide the {size} of {name} {shape}")
    return spec


def param_shardings(params: Any, mesh: jax.sharding.Mesh) -> Any:
    """A tree of NamedSharding like `params` (arrays or ShapeDtypeStructs)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_of(path_name(path), leaf.shape, mesh)), params)


def state_shardings(state: Any, params: Any, mesh: jax.sharding.Mesh) -> Any:
    """Shardings of a whole TrainState: every leaf whose path ends in a parameter's path and has its shape lies as
    that parameter does (Adam's moments); scalars and keys are replicated. Anything else is an error."""
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
    """Rows [B, ...] over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def row_shards(mesh: jax.sharding.Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, accumulate: int, mesh: jax.sharding.Mesh) -> None:
    """Raise a UserError where a (micro-)batch does not divide over the mesh."""
    if (batch_size // accumulate) % row_shards(mesh):
        raise UserError(f"train.batch_size={batch_size} in {accumulate} part(s) does not divide by the"
                        f" {row_shards(mesh)} row shards of the mesh (data × fsdp)")


def my_rows(batch_size: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """[b] int64: which of the B rows of a batch the devices of this process hold, ascending."""
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held.values() if index is not None]))


def put_batch(batch: Any, batch_size: int, mesh: jax.sharding.Mesh) -> Any:
    """A batch of this process's rows (`my_rows`) as global arrays [batch_size, ...]."""
    placed = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, placed)
    mine = my_rows(batch_size, mesh)

    def build(local: np.ndarray) -> jax.Array:
        def rows(index: Any) -> np.ndarray:
            wanted = np.arange(batch_size)[index[0]]
            return local[np.searchsorted(mine, wanted)]
        return jax.make_array_from_callback((batch_size, *local.shape[1:]), placed, rows)

    return jax.tree.map(build, batch)


def place(leaf: Any, where: NamedSharding) -> jax.Array:
    """An array that every process holds whole, laid out over the mesh."""
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def gather(tree: Any) -> Any:
    """The whole arrays, as NumPy, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)
