"""Products, LayerNorm, dropout: the pieces every block is made of, and the precision that they run in."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done. Parameters, LayerNorm, softmax, logits and loss are float32 in any case.

    `activations` is the dtype between the layers, `operands` the dtype that the factors of a matrix
    product are cast to. GPU and TPU: both bfloat16. A CPU with bfloat16 instructions: float32
    activations (its elementwise code has no bfloat16) and bfloat16 operands. `unroll` lays the blocks
    out one after the other instead of looping over them: faster steps, longer compilation.
    """

    activations: str = "float32"
    operands: str = "float32"
    unroll: bool = False


class Affine(nnx.Module):
    """Kernel [*stack, *inputs, *outputs] drawn from N(0, std²), BERT's initialisation, and bias [*stack, *outputs], zero."""

    def __init__(self, key: jax.Array, inputs: tuple[int, ...], outputs: tuple[int, ...], std: float,
                 stack: tuple[int, ...] = ()) -> None:
        self.kernel = nnx.Param(std * jax.random.normal(key, (*stack, *inputs, *outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, *outputs), jnp.float32))


class Norm(nnx.Module):
    """LayerNorm's scale (ones) and bias (zeros), [*stack, D] each."""

    def __init__(self, width: int, stack: tuple[int, ...] = ()) -> None:
        self.scale = nnx.Param(jnp.ones((*stack, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((*stack, width), jnp.float32))


def _contract(x: jax.Array, y: jax.Array, x_axes, y_axes, out: jnp.dtype) -> jax.Array:
    return lax.dot_general(x, y, ((tuple(x_axes), tuple(y_axes)), ((), ())), preferred_element_type=out)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_product(x: jax.Array, kernel: jax.Array, operands: str) -> jax.Array:
    """x [M, I] · kernel [I, O], float32 in and out, factors rounded to `operands` in all three products.

    Without the custom rule, autodiff would ask for products of a float32 cotangent with a bfloat16
    factor, which no CPU has an instruction for. Matrices only: XLA's CPU backend has no mixed product
    for more dimensions.
    """
    return _contract(x.astype(operands), kernel.astype(operands), (1,), (0,), jnp.float32)


def _mixed_forward(x, kernel, operands):
    return _mixed_product(x, kernel, operands), (x.astype(operands), kernel.astype(operands))


def _mixed_backward(operands, saved, dy):
    x, kernel = saved
    low = dy.astype(operands)
    return _contract(low, kernel, (1,), (1,), jnp.float32), _contract(x, low, (0,), (0,), jnp.float32)


_mixed_product.defvjp(_mixed_forward, _mixed_backward)


def product(x: jax.Array, kernel: jax.Array, compute: Compute, axes: int = 1) -> jax.Array:
    """Contract the last `axes` dimensions of x [..., *I] with the first ones of kernel [*I, *O] → [..., *O]."""
    if compute.operands != compute.activations:
        inputs, outputs = math.prod(kernel.shape[:axes]), kernel.shape[axes:]
        y: jax.Array = _mixed_product(x.reshape(-1, inputs), kernel.reshape(inputs, -1), compute.operands)
        return y.reshape(*x.shape[: x.ndim - axes], *outputs)
    return _contract(x, kernel.astype(x.dtype), range(x.ndim - axes, x.ndim), range(axes), x.dtype)


def dense(x: jax.Array, layer: Affine, compute: Compute, axes: int = 1) -> jax.Array:
    """x [..., *I] → [..., *O] by the layer's kernel and bias."""
    bias = layer.bias[...].astype(x.dtype)
    y = product(x, layer.kernel[...], compute, axes)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def layer_norm(x: jax.Array, layer: Norm, eps: float) -> jax.Array:
    """LayerNorm over the last axis of x [..., D] (Ba et al. 2016); statistics in float32, result in x's dtype."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    variance = jnp.square(centred).mean(-1, keepdims=True)
    shape = (1,) * (x.ndim - 1) + (-1,)
    y = centred * lax.rsqrt(variance + eps) * layer.scale[...].reshape(shape) + layer.bias[...].reshape(shape)
    return y.astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """The exact, erf form (Hendrycks & Gimpel 2016) that BERT's checkpoints were trained with."""
    return jax.nn.gelu(x, approximate=False)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> tuple[jax.Array, float]:
    """A boolean mask of `shape` that is True with probability 1 - rate, and the scale that corrects for it.

    Random bits are the dearest part of dropout, so four elements share one 32-bit draw: the rate is
    rounded to a multiple of 1/256 (0.1 → 0.1016), and the scale is that of the rounded rate, so the
    expectation is exact. Shapes whose last axis is not a multiple of four draw one byte an element.
    """
    threshold = min(max(round(rate * 256), 1), 255)
    *lead, last = shape
    if last % 4:
        drawn = jax.random.bits(key, shape, jnp.uint8)
    else:
        words = jax.random.bits(key, (*lead, last // 4), jnp.uint32)
        drawn = lax.bitcast_convert_type(words, jnp.uint8).reshape(shape)
    return drawn >= threshold, 256 / (256 - threshold)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout (Srivastava et al. 2014); `key=None` or rate 0 is the identity. See `keep_mask`."""
    if key is None or rate == 0.0:
        return x
    keep, scale = keep_mask(key, rate, x.shape)
    return jnp.where(keep, x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))
