"""Matrix products of float8 factors (Micikevicius et al. 2022), which GPUs from compute capability 8.9 on multiply at twice the
rate of bfloat16. `jaxplm.nn.layers.matmul` calls this where `Compute.products` is "float8".

A factor of the forward pass has 3 bits of fraction (e4m3, up to 448); a gradient has 2 and more range (e5m2, up to 57,344). Each
array is divided by a scale that follows from its own largest magnitude, so no state is kept between steps. A plain maximum is
global over a mesh.

Scales are powers of two, so dividing by one and multiplying by it never rounds. It follows that

- a number is rounded alike whatever else is in its array, unless it is below 2⁻¹⁴ of the largest one (e4m3; 2⁻²⁹, e5m2);
- the scale of a product is exact in bfloat16, so it is multiplied into a bfloat16 result with the same bits as into the sum.

XLA makes a `__cublas$lt$matmul$f8` of a product whose operands have the float8 types themselves, and folds the multiplication of
its result by a scalar into the call. Operands that are converted back to bfloat16 first depend on a pattern, which XLA's other
passes break. cuBLASLt reads both factors along the summed dimension on Hopper: XLA rounds x and dy into a straight and a
transposed copy in one pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

FACTOR, GRADIENT = jnp.float8_e4m3fn, jnp.float8_e5m2
_LARGEST = {FACTOR: 448.0, GRADIENT: 57344.0}
_SMALLEST_SCALE = 2.0**-126  # of which the inverse is finite

# How the tensor cores add. FAST keeps about 14 bits of a sum, with errors far below those of the forward pass's factors. EXACT is
# float32: gradients of kernels are sums over all tokens. Without one of these names, XLA can take a product and its scaling for a
# kernel of its own, by Triton.
FAST = lax.DotAlgorithmPreset.ANY_F8_ANY_F8_F32_FAST_ACCUM
EXACT = lax.DotAlgorithmPreset.ANY_F8_ANY_F8_F32


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def float8_matmul(x: jax.Array, kernel: jax.Array, emulated: bool = False) -> jax.Array:
    """Return x [M, I] · kernel [I, O] in the type of x, with the factors of all three products rounded to float8.

    The backward pass keeps the rounded factors. The gradients have the types of x and of kernel. `emulated` computes the same
    on devices that have no float8 units, of which a CPU is tested.
    """
    return _forward(x, kernel, emulated)[0]


def quantize(x: jax.Array, dtype: type) -> tuple[jax.Array, jax.Array]:
    """Return x divided by its scale, in `dtype`, and the scale in the type of x.

    The scale is the smallest power of two at which the largest magnitude of x is within the range of `dtype`. An x with
    numbers that are not finite has a result with such numbers.
    """
    share = jnp.abs(x).max().astype(jnp.float32) / _LARGEST[dtype]
    # The next power of two from the bits of the number: 2ⁿ has a fraction of zeros. Logarithms are not exact on every device.
    bits = lax.bitcast_convert_type(share, jnp.int32) + 0x007FFFFF
    scale = lax.bitcast_convert_type(bits & 0x7F800000, jnp.float32)
    scale = jnp.maximum(scale, _SMALLEST_SCALE)
    return (x.astype(jnp.float32) * (1 / scale)).astype(dtype), scale.astype(x.dtype)


def _forward(x, kernel, emulated):
    low_x, x_scale = quantize(x, FACTOR)
    low_kernel, kernel_scale = quantize(kernel, FACTOR)
    y = product(low_x, low_kernel, (1, 0), (x_scale, kernel_scale), x.dtype, None if emulated else FAST)
    return y, (low_x, low_kernel, x_scale, kernel_scale)


def _backward(emulated, saved, dy):
    sums = None if emulated else EXACT
    low_x, low_kernel, x_scale, kernel_scale = saved
    low_dy, dy_scale = quantize(dy, GRADIENT)
    dx = product(low_dy, low_kernel, (1, 1), (dy_scale, kernel_scale), x_scale.dtype, sums)
    dw = product(low_x, low_dy, (0, 0), (x_scale, dy_scale), kernel_scale.dtype, sums)
    return dx, dw


float8_matmul.defvjp(_forward, _backward)


def product(a: jax.Array, b: jax.Array, axes: tuple[int, int], scales: tuple[jax.Array, jax.Array], out: jnp.dtype,
            sums: lax.DotAlgorithmPreset | None) -> jax.Array:
    """Return the sum of the products of two matrices over one axis of each, times both scales, in the type `out`."""
    y = lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), precision=sums, preferred_element_type=out)
    return y * (scales[0].astype(jnp.float32) * scales[1].astype(jnp.float32)).astype(out)
