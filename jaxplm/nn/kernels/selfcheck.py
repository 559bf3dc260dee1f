"""Check on this device that the Triton kernels compute what their plain forms compute, before a run relies on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.nn.cpu_kernels import erf_gelu, layer_norm_rows
from jaxplm.nn.dropout import dropout, key_words
from jaxplm.nn.kernels.bias_gelu import bias_gelu
from jaxplm.nn.kernels.residual_norm import residual_norm

TOLERANCE = 0.02  # a few roundings to bfloat16; a wrong mask of dropout or a wrong sum is off by several tenths
_RATE, _EPS = 0.1, 1e-5


def differences(*, rows: int = 96, width: int = 256, dtype: str = "bfloat16", device: Any = None,
                interpret: bool = False, options: dict[str, Any] | None = None) -> dict[str, float]:
    """Return the largest error of each kernel's output and gradients on random inputs.

    Each is relative to the largest value that the plain form in float32 has on the same inputs. All forms are one compiled function,
    because compilation takes nearly all of the time of a check.

    Args:
      rows, width: of the activations.
      dtype: of the activations.
      device: a `jax.Device`; None is the default one.
      interpret: runs the kernels without a GPU.
      options: of XLA's compiler.

    Raises:
      Whatever a kernel raises.
    """
    random = np.random.default_rng(2)
    x, y, gradient = (random.standard_normal((rows, width)).astype(jnp.dtype(dtype)) for _ in range(3))
    bias = random.standard_normal(width).astype(jnp.dtype(dtype))
    scale, shift = (random.standard_normal(width).astype(np.float32) for _ in range(2))
    key = jax.device_put(jax.random.key(5), device)

    def norm(x, y, bias, scale, shift):
        return residual_norm(x, y, bias, jnp.stack(key_words(key)), scale, shift, _RATE, _EPS, None, interpret)

    def plain_norm(x, y, bias, scale, shift):
        return layer_norm_rows(x + dropout(y + bias[None], _RATE, key), scale, shift, _EPS)

    def with_gradients(function, gradient, *given):
        out, back = jax.vjp(function, *given)
        return out, *back(gradient)

    kernels = {("norm", "dx", "dy", "dbias", "dscale", "dshift"): (norm, plain_norm, (x, y, bias, scale, shift)),
               ("gelu", "gelu's dy", "gelu's dbias"): (lambda y, bias: bias_gelu(y, bias, None, interpret),
                                                       lambda y, bias: erf_gelu(y + bias[None]), (y, bias))}

    def all_forms(gradient, inputs):
        wide_gradient, wide_inputs = jax.tree.map(lambda part: part.astype(jnp.float32), (gradient, inputs))
        return [(with_gradients(kernel, gradient, *of), with_gradients(plain, wide_gradient, *wide))
                for (kernel, plain, _), of, wide in zip(kernels.values(), inputs, wide_inputs, strict=True)]

    given = jax.device_put((gradient, [inputs for _, _, inputs in kernels.values()]), device)
    errors = {}
    for names, (outputs, plain_outputs) in zip(kernels, jax.jit(all_forms, compiler_options=options)(*given), strict=True):
        for name, found, wanted in zip(names, outputs, plain_outputs, strict=True):
            difference = np.abs(np.asarray(found, np.float32) - np.asarray(wanted)).max() / np.abs(np.asarray(wanted)).max()
            errors[name] = float(difference) if np.isfinite(difference) else float("inf")
    return errors


def find_fault(dtype: str, device: Any, options: dict[str, Any] | None = None) -> str:
    """Return in one line what is wrong with the kernels on this device, compiled with XLA's `options`; "" if nothing is."""
    try:
        errors = differences(dtype=dtype, device=device, options=options)
    except Exception as error:  # from an experimental interface, a driver or a compiler: the plain form needs none of them
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    return ", ".join(f"{name} differs by {error:.0%} from the plain form" for name, error in wrong.items())
