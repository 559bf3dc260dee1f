"""The pieces that every block is made of: linear layers, LayerNorm, dropout; and the precision that they run in."""

import dataclasses
import functools
import logging
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxplm.nn.cpu_kernels import contract, erf_gelu, layer_norm_rows, low_precision_matmul
from jaxplm.nn.dropout import dropout, key_words
from jaxplm.nn.float8 import float8_matmul
from jaxplm.nn.gpu_products import biased_products, materialized
from jaxplm.nn.kernels.bias_gelu import bias_gelu
from jaxplm.nn.kernels.residual_norm import residual_norm
from jaxplm.nn.kernels.tiles import LARGEST_WIDTH
from jaxplm.nn.mesh_split import MeshSplit

log = logging.getLogger("jaxplm")

QKV = jax.Array | tuple[jax.Array, jax.Array, jax.Array]  # queries, keys, values: [B, L, 3, H, Dh], or three of [B, L, H, Dh]

PRODUCT = "product"  # the name of a product with a kernel, by which `Compute.remat` = dots knows what to keep


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done. Parameters, LayerNorm, softmax, logits and loss are float32 in any case.

    Attributes:
      activations: type of the arrays between layers. bfloat16 on GPU and TPU; float32 on a CPU, which has no elementwise
        instructions for bfloat16.
      operands: type that the factors of a matrix product are cast to. bfloat16 on GPU, TPU, and CPUs with instructions
        for it.
      unroll: whether the blocks are compiled one after the other instead of as a loop: faster steps, longer compilation.
      attention: the kernel, see `jaxplm.nn.attention.dispatch`: plain, chunked, cudnn, segmented, nvidia or splash.
      kernels: what computes the passes over activations between the products: plain (XLA), triton (`jaxplm.nn.kernels`), or
        interpret, the same kernels on any device, for tests.
      split: the mesh, for kernels that XLA cannot partition, which is every one except plain; None on one device.
      remat: what the backward pass recomputes, see `jaxplm.nn.encoder`: none, blocks or dots.
      products: "float8" rounds the factors of the blocks' products to float8, see `jaxplm.nn.float8`, and "emulated float8" does
        so on a device without units for it; "" leaves them in `operands`.
    """

    activations: str = "float32"
    operands: str = "float32"
    unroll: bool = False
    attention: str = "plain"
    kernels: str = "plain"
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
    return _with_bias(matmul(x, layer.kernel[...], compute, axes), layer.bias[...].astype(x.dtype), compute)


def _with_bias(y: jax.Array, bias: jax.Array, compute: Compute) -> jax.Array:
    """Return y [..., *O] + bias [*O]."""
    if compute.products:  # cuBLASLt's product adds a bias of one axis itself, to a result of two
        return (y.reshape(-1, bias.size) + bias.reshape(1, -1)).reshape(y.shape)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def dense_qkv(x: jax.Array, layer: Linear, compute: Compute, apart: bool) -> tuple[QKV, jax.Array]:
    """Return queries, keys and values of x [B, L, D], and x for its next use (`gpu_products.biased_products`).

    They are one array [B, L, 3, H, Dh], or three of [B, L, H, Dh] where `compute.kernels` is not plain and they are wanted apart: a
    GPU's products are large enough to be three, and then no pass splits their result, and none joins its gradient.
    """
    if compute.kernels == "plain":
        return dense(x, layer, compute), x
    kernel, bias = layer.kernel[...], layer.bias[...]
    if compute.products:
        if not apart:
            return dense(x, layer, compute), x
        q, k, v = (_with_bias(matmul(x, kernel[:, i], compute), bias[i].astype(x.dtype), compute) for i in range(3))
        return (q, k, v), x
    kernel, rows = kernel.astype(x.dtype), x.reshape(-1, x.shape[-1])
    kernels, biases = (tuple(kernel[:, i] for i in range(3)), tuple(bias)) if apart else ((kernel,), (bias,))
    outputs: tuple[jax.Array, ...]
    same: jax.Array
    outputs, same = biased_products(rows, tuple(part.reshape(len(part), -1) for part in kernels),
                                    tuple(part.reshape(-1) for part in biases))
    outputs = tuple(checkpoint_name(part.reshape(*x.shape[:-1], *bias.shape[int(apart):]), PRODUCT) for part in outputs)
    return (outputs[0], outputs[1], outputs[2]) if apart else outputs[0], same.reshape(x.shape)


def dense_gelu(x: jax.Array, layer: Linear, compute: Compute) -> jax.Array:
    """Apply a linear layer and GELU to the last axis of x: [..., I] → [..., O]."""
    if compute.kernels == "plain":
        return gelu(dense(x, layer, compute))
    kernel, bias = _stored(layer, x.dtype, compute)
    y = matmul(x.reshape(-1, x.shape[-1]), kernel, compute)
    activated: jax.Array = bias_gelu(y, bias, compute.split, compute.kernels == "interpret")
    return activated.reshape(*x.shape[:-1], -1)


def dense_residual_norm(x: jax.Array, y: jax.Array, layer: Linear, norm: LayerNorm, rate: float, key: jax.Array | None, eps: float,
                        compute: Compute, axes: int = 1) -> jax.Array:
    """Return LayerNorm(x + dropout(layer(y))), [..., D].

    Args:
      x: [..., D], the residual.
      y: [..., *I], of which the last `axes` dimensions are the layer's input.
      layer: kernel [*I, D] and bias [D].
      norm: the LayerNorm.
      rate, key: of `dropout`.
      eps: of the LayerNorm.
      compute: how the arithmetic is done.
      axes: see y.
    """
    if compute.kernels == "plain" or not _fits(x.shape[-1]):
        return layer_norm(x + dropout(dense(y, layer, compute, axes), rate, key), norm, eps)
    kernel, bias = _stored(layer, x.dtype, compute)
    product = matmul(y.reshape(-1, math.prod(y.shape[y.ndim - axes :])), kernel.reshape(-1, x.shape[-1]), compute)
    words = jnp.zeros((2,), jnp.uint32) if key is None else jnp.stack(key_words(key))
    normed: jax.Array = residual_norm(x.reshape(product.shape), product, bias, words, norm.scale[...], norm.bias[...],
                           0.0 if key is None else rate, eps, compute.split, compute.kernels == "interpret")
    return normed.reshape(x.shape)


def _stored(layer: Linear, dtype: jnp.dtype, compute: Compute) -> tuple[jax.Array, jax.Array]:
    """Return kernel and bias in the type of the activations, stored; a kernel that is rounded to float8 stays as it is."""
    if compute.products:
        return layer.kernel[...], layer.bias[...].astype(dtype)
    kernel, bias = materialized(layer.kernel[...].astype(dtype), layer.bias[...].astype(dtype))
    return kernel, bias


@functools.cache
def _fits(width: int) -> bool:
    """Return whether a row of so many columns fits into a kernel; log once that it does not."""
    if width > LARGEST_WIDTH:
        log.info("LayerNorm: plain, without a kernel of its own: the kernel's rows have at most %d columns, not %d", LARGEST_WIDTH, width)
    return width <= LARGEST_WIDTH


def layer_norm(x: jax.Array, layer: LayerNorm, eps: float) -> jax.Array:
    """Apply a LayerNorm over the last axis of x [..., D]."""
    return layer_norm_rows(x, layer.scale[...], layer.bias[...], eps)


def gelu(x: jax.Array) -> jax.Array:
    """Apply GELU in its exact form, x Φ(x) (Hendrycks & Gimpel 2016), that BERT's checkpoints were trained with."""
    return erf_gelu(x)
