"""Products, LayerNorm, dropout: the pieces every block is made of, and the precision that they run in."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxplm.nn.cpu_kernels import (
    _along_rows,
    _contract,
    low_precision_matmul,
)


class MeshSplit(NamedTuple):
    """The axes of a mesh that activations [B, L, H, Dh] are split over: rows B and heads H."""

    mesh: jax.sharding.Mesh
    rows: tuple[str, ...]
    heads: str


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done. Parameters, LayerNorm, softmax, logits and loss are float32 in any case.

    `activations` is the dtype between the layers, `operands` the dtype that the factors of a matrix
    product are cast to. GPU and TPU: both bfloat16. A CPU with bfloat16 instructions: float32
    activations (its elementwise code has no bfloat16) and bfloat16 operands. `unroll` lays the blocks
    out one after the other instead of looping over them: faster steps, longer compilation.

    `attention` is the kernel (`nn.attention`): plain, chunked, cudnn or splash. All but the first are opaque to XLA's
    partitioner and so need `split`, None on one device. `remat` is what the backward pass recomputes (`nn.encoder`): none, blocks, dots.
    """

    activations: str = "float32"
    operands: str = "float32"
    unroll: bool = False
    attention: str = "plain"
    split: MeshSplit | None = None
    remat: str = "none"


class Linear(nnx.Module):
    """Kernel [*stack, *inputs, *outputs] drawn from N(0, std²), BERT's initialisation, and bias [*stack, *outputs], zero."""

    def __init__(self, key: jax.Array, inputs: tuple[int, ...], outputs: tuple[int, ...], std: float,
                 stack: tuple[int, ...] = ()) -> None:
        self.kernel = nnx.Param(std * jax.random.normal(key, (*stack, *inputs, *outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, *outputs), jnp.float32))


class LayerNorm(nnx.Module):
    """LayerNorm's scale (ones) and bias (zeros), [*stack, D] each."""

    def __init__(self, width: int, stack: tuple[int, ...] = ()) -> None:
        self.scale = nnx.Param(jnp.ones((*stack, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, width), jnp.float32))


PRODUCT = "product"  # the name by which `compute.remat` = dots knows what to keep


def matmul(x: jax.Array, kernel: jax.Array, compute: Compute, axes: int = 1) -> jax.Array:
    """Contract the last `axes` dimensions of x [..., *I] with the first ones of kernel [*I, *O] → [..., *O]."""
    if compute.operands != compute.activations:
        inputs, outputs = math.prod(kernel.shape[:axes]), kernel.shape[axes:]
        y: jax.Array = low_precision_matmul(x.reshape(-1, inputs), kernel.reshape(inputs, -1), compute.operands)
        y = y.reshape(*x.shape[: x.ndim - axes], *outputs)
    else:
        y = _contract(x, kernel.astype(x.dtype), range(x.ndim - axes, x.ndim), range(axes), x.dtype)
    return checkpoint_name(y, PRODUCT)


def dense(x: jax.Array, layer: Linear, compute: Compute, axes: int = 1) -> jax.Array:
    """x [..., *I] → [..., *O] by the layer's kernel and bias."""
    bias = layer.bias[...].astype(x.dtype)
    y = matmul(x, layer.kernel[...], compute, axes)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def layer_norm(x: jax.Array, layer: LayerNorm, eps: float) -> jax.Array:
    """LayerNorm over the last axis of x [..., D] (Ba et al. 2016); statistics in float32, result in x's dtype."""
    return _layer_norm(x, layer.scale[...], layer.bias[...], eps)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    return _layer_norm_forward(x, scale, bias, eps)[0]


def _layer_norm_forward(x, scale, bias, eps):
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    inverse = lax.rsqrt(jnp.square(wide - mean).mean(-1, keepdims=True) + eps)
    y = (wide - mean) * inverse * _along_rows(scale, x.ndim) + _along_rows(bias, x.ndim)
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(eps, saved, dy):
    x, mean, inverse, scale = lax.optimization_barrier(saved)  # see _gelu_backward
    dy = dy.astype(jnp.float32)
    normed = (x.astype(jnp.float32) - mean) * inverse
    dn = dy * _along_rows(scale, x.ndim)
    dx = inverse * (dn - dn.mean(-1, keepdims=True) - normed * (dn * normed).mean(-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (dy * normed).sum(rows), dy.sum(rows)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact, erf form (Hendrycks & Gimpel 2016) that BERT's checkpoints were trained with: x Φ(x).

    Its backward pass keeps x alone, the widest array of a block, and makes Φ and φ again from it. Φ by erf and in float32:
    the erfc of `jax.nn.gelu` takes a CPU twice as long, and tells more digits only where x Φ(x) is nearly 0.
    """
    wide = x.astype(jnp.float32)
    return (wide * _gaussian(wide)).astype(x.dtype)


def _gaussian(x: jax.Array) -> jax.Array:
    """Φ(x), the standard normal distribution, for float32 x."""
    return 0.5 + 0.5 * lax.erf(x * 0.5**0.5)


def _gelu_forward(x):
    return gelu(x), x


def _gelu_backward(x, dy):
    # The barrier keeps XLA from finding that the forward pass has computed some of this already, and holding it.
    x = lax.optimization_barrier(x)
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    slope = _gaussian(wide) + wide * density
    return ((dy.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _mix(h: jax.Array) -> jax.Array:
    """A bijection of uint32 whose output bits each depend on all input bits (xor-shift-multiply, as in MurmurHash3)."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        h = (h ^ (h >> shift)) * jnp.uint32(factor)
    return h ^ (h >> 15)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...], rows: jax.Array | None = None) -> jax.Array:
    """A boolean mask of `shape` that is True with probability 1 - rate, to within 2⁻³².

    A hash of (key, place) and not a generator of JAX: random bits are the dearest part of dropout, and this
    is a dozen integer operations an element that fuse with what uses the mask, on every platform alike. Each
    place of an array depends on the key and its own index alone, so a mesh splits it freely.

    rows: [*lead] uint32, for a part of a larger mask: the number of each of its rows in that.
    """
    *lead, last = shape
    low, high = jax.random.key_data(key).astype(jnp.uint32)[-2:]
    rows = lax.iota(jnp.uint32, math.prod(lead)).reshape(lead) if rows is None else rows
    seeds = _mix(_mix(rows ^ low) + high)[..., None]
    columns = lax.iota(jnp.uint32, last).reshape((1,) * len(lead) + (last,)) * jnp.uint32(0x9E3779B9)
    return _mix(seeds ^ columns) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(x: jax.Array, rate: float, key: jax.Array | None, rows: jax.Array | None = None) -> jax.Array:
    """Inverted dropout (Srivastava et al. 2014); `key=None` or rate 0 is the identity. See `keep_mask`, also for `rows`."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(keep_mask(key, rate, x.shape, rows), x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))
