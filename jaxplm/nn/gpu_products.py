"""Matrix products in forms that were chosen by measurement on XLA's GPU backend, with backward passes written by hand.

They run on every platform and compute the same there. `jaxplm.nn.layers` and `jaxplm.nn.heads` have the pieces of the model that call
them. Shapes: M rows, I inputs, O outputs, R rows of a table, D width.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxplm.nn.cpu_kernels import contract

Arrays = tuple[jax.Array, ...]


@jax.custom_vjp
def materialized(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Return the arrays so that XLA computes and stores each before it is used.

    XLA finds no bias to give to cuBLASLt where the bias is a slice of the blocks' stack, or a cast.
    """
    return tuple(lax.optimization_barrier(arrays))


materialized.defvjp(lambda *arrays: (materialized(*arrays), None), lambda _, gradients: gradients)


@jax.custom_vjp
def biased_products(x: jax.Array, kernels: Arrays, biases: Arrays) -> tuple[Arrays, jax.Array]:
    """Return x · kernel + bias for each kernel, [M, O], and x itself.

    Whoever uses x again must use the one that is returned: then the gradient from there is where the backward pass starts to add up,
    and each product adds to it in place.

    Args:
      x: [M, I].
      kernels: [I, O] each, in x's type.
      biases: [O] each, float32.
    """
    return _biased_products_forward(x, kernels, biases)[0]


def _biased_products_forward(x, kernels, biases):
    outputs = []
    for kernel, bias in zip(kernels, biases, strict=True):
        # x is among what is materialized because XLA merges products that share a factor, and then splits their result.
        x_here, kernel, bias = lax.optimization_barrier((x, kernel, bias.astype(x.dtype)))
        outputs.append(contract(x_here, kernel, (1,), (0,), x.dtype) + bias.reshape(1, -1))
    return (tuple(outputs), x), (x, kernels)


def _biased_products_backward(saved, gradients):
    x, kernels = saved
    d_outputs, dx = gradients
    d_kernels, d_biases = [], []
    for d_output, kernel in zip(d_outputs, kernels, strict=True):
        x_here, d_here, kernel = lax.optimization_barrier((x, d_output, kernel))
        # The barrier keeps XLA from adding two products of which one already adds to something else, which takes another pass.
        dx = lax.optimization_barrier(dx + contract(d_here, kernel, (1,), (1,), x.dtype))
        d_kernels.append(contract(x_here, d_here, (0,), (0,), x.dtype))
        d_biases.append(d_here.astype(jnp.float32).sum(0))
    return dx, tuple(d_kernels), tuple(d_biases)


biased_products.defvjp(_biased_products_forward, _biased_products_backward)


@jax.custom_vjp
def bfloat16_logits(x: jax.Array, table_RD: jax.Array, bias_R: jax.Array) -> jax.Array:
    """Return float32 x [M, D] · table [R, D] + bias [R] for bfloat16 factors.

    The gradient of the logits, the largest array of a step, is stored in bfloat16. Automatic differentiation would multiply it in
    float32, which takes twice the memory and the time.
    """
    return contract(x, table_RD, (1,), (1,), jnp.float32) + bias_R.reshape(1, -1)


def _bfloat16_logits_backward(saved, dlogits):
    x, table_RD = saved
    low = lax.optimization_barrier(dlogits.astype(x.dtype))
    return contract(low, table_RD, (1,), (0,), x.dtype), contract(low, x, (0,), (0,), x.dtype), low.astype(jnp.float32).sum(0)


bfloat16_logits.defvjp(lambda x, table_RD, bias_R: (bfloat16_logits(x, table_RD, bias_R), (x, table_RD)), _bfloat16_logits_backward)
