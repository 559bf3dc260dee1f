"""The pieces that every block is made of: linear layers, LayerNorm, dropout; and the precision that they run in."""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxplm.nn.cpu_kernels import contract, erf_gelu, layer_norm_rows, low_precision_matmul
from jaxplm.nn.float8 import float8_matmul

PRODUCT = "product"  # the name of a product with a kernel, by which `Compute.remat` = dots knows what to keep


class MeshSplit(NamedTuple):
    """The axes of a mesh that activations [B, L, H, Dh] are split over: rows B and heads H."""

    mesh: jax.sharding.Mesh
    rows: tuple[str, ...]
    heads: str


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done. Parameters, LayerNorm, softmax, logits and loss are float32 in any case.

    Attributes:
      activations: type of the arrays between layers. bfloat16 on GPU and TPU; float32 on a CPU, which has no elementwise
        instructions for bfloat16.
      operands: type that the factors of a matrix product are cast to. bfloat16 on GPU, TPU, and CPUs with instructions
        for it.
      unroll: whether the blocks are compiled one after the other instead of as a loop: faster steps, longer compilation.
      attention: the kernel, see `jaxplm.nn.attention.dispatch`: plain, chunked, cudnn or splash.
      split: the mesh, for kernels that XLA cannot partition, which is every one except plain; None on one device.
      remat: what the backward pass recomputes, see `jaxplm.nn.encoder`: none, blocks or dots.
      products: "float8" rounds the factors of the blocks' products to float8, see `jaxplm.nn.float8`, and "emulated float8" does
        so on a device without units for it; "" leaves them in `operands`.
    """

    activations: str = "float32"
    operands: str = "float32"
    unroll: bool = False
    attention: str = "plain"
    split: MeshSplit | None = None
    remat: str = "none"
    products: str = ""

    def of_heads(self) -> "Compute":
        """Return how the layers outside the encoder's blocks compute: as the blocks do, but never in float8."""
        return dataclasses.replace(self, products="")


class Linear(nnx.Module):
    """Kernel [*stack, *inputs, *outputs] and bias [*stack, *outputs] of a linear layer.

    The kernel starts from N(0, std²) and the bias from zero, as in BERT.
    """

    def __init__(self, key: jax.Array, inputs: tuple[int, ...], outputs: tuple[int, ...], std: float,
                 stack: tuple[int, ...] = ()) -> None:
        self.kernel = nnx.Param(std * jax.random.normal(key, (*stack, *inputs, *outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, *outputs), jnp.float32))


class LayerNorm(nnx.Module):
    """Scale and bias of a LayerNorm, [*stack, D] each. The scale starts from one, the bias from zero."""

    def __init__(self, width: int, stack: tuple[int, ...] = ()) -> None:
        self.scale = nnx.Param(jnp.ones((*stack, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, width), jnp.float32))


def matmul(x: jax.Array, kernel: jax.Array, compute: Compute, axes: int = 1) -> jax.Array:
    """Contract the last `axes` dimensions of x [..., *I] with the first ones of kernel [*I, *O]; return [..., *O]."""
    inputs, outputs = math.prod(kernel.shape[:axes]), kernel.shape[axes:]
    if compute.products:
        y: jax.Array = float8_matmul(x.reshape(-1, inputs), kernel.reshape(inputs, -1), compute.products == "emulated float8")
        y = y.reshape(*x.shape[: x.ndim - axes], *outputs)
    elif compute.operands != compute.activations:
        y = low_precision_matmul(x.reshape(-1, inputs), kernel.reshape(inputs, -1), compute.operands)
        y = y.reshape(*x.shape[: x.ndim - axes], *outputs)
    else:
        y = contract(x, kernel.astype(x.dtype), range(x.ndim - axes, x.ndim), range(axes), x.dtype)
    return checkpoint_name(y, PRODUCT)


def dense(x: jax.Array, layer: Linear, compute: Compute, axes: int = 1) -> jax.Array:
    """Apply a linear layer to the last `axes` dimensions of x: [..., *I] → [..., *O]."""
    bias = layer.bias[...].astype(x.dtype)
    y = matmul(x, layer.kernel[...], compute, axes)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def layer_norm(x: jax.Array, layer: LayerNorm, eps: float) -> jax.Array:
    """Apply a LayerNorm over the last axis of x [..., D]."""
    return layer_norm_rows(x, layer.scale[...], layer.bias[...], eps)


def gelu(x: jax.Array) -> jax.Array:
    """Apply GELU in its exact form, x Φ(x) (Hendrycks & Gimpel 2016), that BERT's checkpoints were trained with."""
    return erf_gelu(x)


def dropout(x: jax.Array, rate: float, key: jax.Array | None, rows: jax.Array | None = None) -> jax.Array:
    """Apply inverted dropout (Srivastava et al. 2014); do nothing if `key` is None or the rate is 0.

    `rows` is that of `dropout_mask`.
    """
    if key is None or rate == 0.0:
        return x
    return jnp.where(dropout_mask(key, rate, x.shape, rows), x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def dropout_mask(key: jax.Array, rate: float, shape: tuple[int, ...], rows: jax.Array | None = None) -> jax.Array:
    """Return a boolean mask that is True with probability 1 - rate, to within 2⁻³².

    The mask is a hash of the key and the place in the array. JAX's random bits are the slowest part of dropout; this takes a
    dozen integer operations per element, which fuse with the use of the mask on every platform. Each element depends on the
    key and its own index only, so a mesh may split the array in any way.

    Args:
      key: JAX key.
      rate: probability of False.
      shape: of the mask.
      rows: [*shape[:-1]] uint32, the number of each row in a larger mask of which this is a part; None: 0, 1, ...
    """
    *lead, last = shape
    low, high = jax.random.key_data(key).astype(jnp.uint32)[-2:]
    rows = lax.iota(jnp.uint32, math.prod(lead)).reshape(lead) if rows is None else rows
    seeds = _mix(_mix(rows ^ low) + high)[..., None]
    columns = lax.iota(jnp.uint32, last).reshape((1,) * len(lead) + (last,)) * jnp.uint32(0x9E3779B9)
    return _mix(seeds ^ columns) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def _mix(h: jax.Array) -> jax.Array:
    """Apply a bijection of uint32 in which each output bit depends on all input bits (xor-shift-multiply, as in MurmurHash3)."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        h = (h ^ (h >> shift)) * jnp.uint32(factor)
    return h ^ (h >> 15)
