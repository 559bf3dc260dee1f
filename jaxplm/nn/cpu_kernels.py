"""Operations in forms that were chosen by measurement on XLA's CPU backend, with backward passes written by hand.

`low_precision_matmul` runs on CPUs only: it is for factors of another type than the activations, see `layers.Compute`. The
others run on every platform, and compute the same there. `jaxplm.nn.layers` has the pieces of the model that call them.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def contract(x: jax.Array, y: jax.Array, x_axes, y_axes, out: jnp.dtype) -> jax.Array:
    """Sum the products of x and y over pairs of axes, in the type `out`."""
    return lax.dot_general(x, y, ((tuple(x_axes), tuple(y_axes)), ((), ())), preferred_element_type=out)


# ---------------------------------------------------------------- matrix product with factors of low precision


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def low_precision_matmul(x: jax.Array, kernel: jax.Array, operands: str, axis: int = 0) -> jax.Array:
    """Return x [M, I] · kernel [I, O] in float32, with all factors of all three products rounded to the type `operands`.

    With `axis` 1, the second factor is a table [O, I], which is multiplied in its stored layout. A transposed copy of a large
    table would take as long as the product.

    Automatic differentiation would multiply a float32 cotangent by a bfloat16 factor, for which no CPU has an instruction.
    XLA's CPU backend has such products for matrices only.
    """
    return contract(x.astype(operands), kernel.astype(operands), (1,), (axis,), jnp.float32)


def _low_precision_matmul_forward(x, kernel, operands, axis):
    return low_precision_matmul(x, kernel, operands, axis), (x.astype(operands), kernel.astype(operands))


def _low_precision_matmul_backward(operands, axis, saved, dy):
    x, kernel = saved
    low = dy.astype(operands)
    # The CPU's bfloat16 product needs its left factor row by row. Without the constraint, XLA folds the transposition into
    # the product and computes it in float32, which takes twice the time.
    rows = Layout((0, 1))
    left, right = (low, x) if axis else (x, low)
    dw = with_layout_constraint(contract(with_layout_constraint(left.T, rows), right, (1,), (0,), jnp.float32), rows)
    return contract(low, kernel, (1,), (1 - axis,), jnp.float32), dw


low_precision_matmul.defvjp(_low_precision_matmul_forward, _low_precision_matmul_backward)


# ---------------------------------------------------------------- bias of a wide layer


@jax.custom_vjp
def add_wide_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Return y [..., O] + bias [O] for a large O. The gradient of the bias is computed as a product with ones.

    XLA's CPU backend sums over the rows of such a matrix at a tenth of the speed of a product.
    """
    return y + _along_rows(bias, y.ndim)


def _add_wide_bias_backward(_, dy):
    rows = dy.reshape(-1, dy.shape[-1])
    return dy, contract(jnp.ones((1, len(rows)), dy.dtype), rows, (1,), (0,), dy.dtype)[0]


add_wide_bias.defvjp(lambda y, bias: (add_wide_bias(y, bias), None), _add_wide_bias_backward)


# ---------------------------------------------------------------- LayerNorm


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm_rows(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """Return LayerNorm over the last axis of x [..., D] (Ba et al. 2016), with statistics in float32 and the result in x's type.

    The backward pass keeps x, mean and inverse standard deviation, and recomputes the normalised values.
    """
    return _layer_norm_forward(x, scale, bias, eps)[0]


def _layer_norm_forward(x, scale, bias, eps):
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    inverse = lax.rsqrt(jnp.square(wide - mean).mean(-1, keepdims=True) + eps)
    y = (wide - mean) * inverse * _along_rows(scale, x.ndim) + _along_rows(bias, x.ndim)
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(eps, saved, dy):
    x, mean, inverse, scale = lax.optimization_barrier(saved)  # see _erf_gelu_backward
    dy = dy.astype(jnp.float32)
    normed = (x.astype(jnp.float32) - mean) * inverse
    dn = dy * _along_rows(scale, x.ndim)
    dx = inverse * (dn - dn.mean(-1, keepdims=True) - normed * (dn * normed).mean(-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (dy * normed).sum(rows), dy.sum(rows)


layer_norm_rows.defvjp(_layer_norm_forward, _layer_norm_backward)


# ---------------------------------------------------------------- GELU


@jax.custom_vjp
def erf_gelu(x: jax.Array) -> jax.Array:
    """Return x Φ(x), with Φ computed by erf (Hendrycks & Gimpel 2016).

    The backward pass keeps only x, which is the widest array of a block, and recomputes Φ and its density, in
    float32. `jax.nn.gelu` uses erfc, which takes a CPU twice as long and is more exact only where x Φ(x) is nearly 0.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
    """Return Φ(x), the distribution function of the standard normal distribution, for float32 x."""
    return 0.5 + 0.5 * lax.erf(x * 0.5**0.5)


def _erf_gelu_forward(x):
    return erf_gelu(x), x


def _erf_gelu_backward(x, dy):
    # Without the barrier, XLA finds that the forward pass computes some of the same values, and keeps those in memory.
    x = lax.optimization_barrier(x)
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    slope = _normal_cdf(wide) + wide * density
    return ((dy.astype(jnp.float32) * slope).astype(x.dtype),)


erf_gelu.defvjp(_erf_gelu_forward, _erf_gelu_backward)


def _along_rows(vector: jax.Array, ndim: int) -> jax.Array:
    """Return vector [D] as [1, ..., 1, D] with `ndim` axes."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))
