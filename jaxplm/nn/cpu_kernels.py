"""Products and sums in the form that XLA's CPU backend computes fast."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def _contract(x: jax.Array, y: jax.Array, x_axes, y_axes, out: jnp.dtype) -> jax.Array:
    return lax.dot_general(x, y, ((tuple(x_axes), tuple(y_axes)), ((), ())), preferred_element_type=out)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def low_precision_matmul(x: jax.Array, kernel: jax.Array, operands: str, axis: int = 0) -> jax.Array:
    """x [M, I] · kernel [I, O], or with `axis` 1 · tableᵀ, table [O, I]; float32 in and out, factors rounded to `operands` in
    all three products.

    Without the custom rule, autodiff would ask for products of a float32 cotangent with a bfloat16
    factor, which no CPU has an instruction for. Matrices only: XLA's CPU backend has no mixed product
    for more dimensions. A large table is taken as it lies: a transposed copy of it would cost as much as the product.
    """
    return _contract(x.astype(operands), kernel.astype(operands), (1,), (axis,), jnp.float32)


def _low_precision_matmul_forward(x, kernel, operands, axis):
    return low_precision_matmul(x, kernel, operands, axis), (x.astype(operands), kernel.astype(operands))


def _low_precision_matmul_backward(operands, axis, saved, dy):
    x, kernel = saved
    low = dy.astype(operands)
    # The CPU's bfloat16 product wants its left factor row by row. Left to itself, XLA would fold the transposition
    # into the product and compute it in float32, at half the speed; the constraint has the factor laid out in memory.
    rows = Layout((0, 1))
    left, right = (low, x) if axis else (x, low)
    dw = with_layout_constraint(_contract(with_layout_constraint(left.T, rows), right, (1,), (0,), jnp.float32), rows)
    return _contract(low, kernel, (1,), (1 - axis,), jnp.float32), dw


low_precision_matmul.defvjp(_low_precision_matmul_forward, _low_precision_matmul_backward)


@jax.custom_vjp
def add_wide_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., O] + bias [O], for a large O: the bias's gradient is a product with ones.

    XLA's CPU backend sums down the columns of such a matrix at a tenth of a product's speed.
    """
    return y + _along_rows(bias, y.ndim)


def _add_wide_bias_backward(_, dy):
    rows = dy.reshape(-1, dy.shape[-1])
    return dy, _contract(jnp.ones((1, len(rows)), dy.dtype), rows, (1,), (0,), dy.dtype)[0]


add_wide_bias.defvjp(lambda y, bias: (add_wide_bias(y, bias), None), _add_wide_bias_backward)


def _along_rows(vector: jax.Array, ndim: int) -> jax.Array:
    return vector.reshape((1,) * (ndim - 1) + (-1,))
