"""How a mesh splits activations, for kernels that XLA cannot partition by itself."""

from typing import NamedTuple

import jax


class MeshSplit(NamedTuple):
    """The axes of a mesh that activations [B, L, H, Dh] are split over: rows B and heads H."""

    mesh: jax.sharding.Mesh
    rows: tuple[str, ...]
    heads: str
