"""Measure whether float8 would be faster: a block's matrix products in bfloat16, and in float8 with its scaling.

    python benchmarks/fp8_products.py [--preset=base] [--tokens=32768] [--repeats=20]

A float8 product has factors of 4 exponent and 3 mantissa bits. Each is divided by its own largest magnitude over 448
(current scaling: Micikevicius et al. 2022). The scale is computed from the bfloat16 factor in every call, so that the
time includes what a training step would spend on it. XLA can turn this form into cuBLASLt's float8 kernels on GPUs from
Hopper on.

For every forward product of a block it prints the milliseconds of both, their ratio, and the error of the float8
product relative to the norm of the exact one. The trainer has no float8 option: it is worth adding if the last line
says more than 1.1. A line of JSON is appended to benchmarks/results.jsonl.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import record
from mlm_work import PRESETS

FLOAT8 = jnp.float8_e4m3fn
LARGEST = 448.0  # of FLOAT8


def in_float8(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return x in float8 and the scale by which to multiply it to get x back."""
    scale = jnp.maximum(jnp.abs(x).max().astype(jnp.float32), 1e-12) / LARGEST
    return (x.astype(jnp.float32) / scale).astype(FLOAT8), scale


def float8_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return x [M, I] · kernel [I, O], both rounded to float8, as bfloat16 [M, O]."""
    (a, a_scale), (b, b_scale) = in_float8(x), in_float8(kernel)
    wide = jax.lax.dot(a.astype(jnp.bfloat16) * a_scale.astype(jnp.bfloat16), b.astype(jnp.bfloat16) * b_scale.astype(jnp.bfloat16),
                       preferred_element_type=jnp.float32)
    return wide.astype(jnp.bfloat16)


def bfloat16_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.dot(x, kernel, preferred_element_type=jnp.float32).astype(jnp.bfloat16)


def milliseconds(product: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, repeats: int) -> float:
    """Return the milliseconds of one call.

    Many calls are enqueued, because an accelerator's own time is shorter than a call's.
    """
    run = jax.jit(product)
    jax.block_until_ready(run(x, kernel))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        outputs = [run(x, kernel) for _ in range(repeats)]
        jax.block_until_ready(outputs)
        times.append((time.perf_counter() - began) / repeats * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", help=", ".join(PRESETS))
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if options.preset not in PRESETS:
        sys.exit(f"--preset={options.preset}: must be one of {', '.join(PRESETS)}")
    _, width, _, ffn_width, _ = PRESETS[options.preset]
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, ffn_width), "down": (ffn_width, width)}
    print(f"{'':<6}{'I × O':>14}{'bfloat16 ms':>13}{'float8 ms':>11}{'gain':>7}{'error':>9}")
    rows = {}
    for name, (inputs, outputs) in shapes.items():
        x = jax.random.normal(jax.random.key(0), (options.tokens, inputs), jnp.bfloat16)
        kernel = 0.02 * jax.random.normal(jax.random.key(1), (inputs, outputs), jnp.bfloat16)
        plain, low = (milliseconds(product, x, kernel, options.repeats) for product in (bfloat16_product, float8_product))
        exact, rounded = (jax.jit(product)(x[:256], kernel).astype(jnp.float32) for product in (bfloat16_product, float8_product))
        error = float(jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact))
        rows[name] = {"bfloat16_ms": plain, "float8_ms": low, "error": error}
        print(f"{name:<6}{f'{inputs} × {outputs}':>14}{plain:>13.3f}{low:>11.3f}{plain / low:>7.2f}{error:>9.4f}", flush=True)
    plain, low = (sum(row[key] for row in rows.values()) for key in ("bfloat16_ms", "float8_ms"))
    print(f"all four products: {plain / low:.2f} times as fast in float8")
    record.append("fp8_products", {"preset": options.preset, "tokens": options.tokens, "products": rows})


if __name__ == "__main__":
    main()
