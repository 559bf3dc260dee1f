"""Whether float8 would gain: the products of a block in bfloat16 and in float8 with the scaling that they would need, in turn.

    python benchmarks/fp8_products.py [--preset=base] [--tokens=32768] [--repeats=20]

A float8 product has factors of 4 + 3 bits, each divided by its own largest magnitude over 448 (current scaling: Micikevicius
et al. 2022), computed from the bfloat16 factor at every call, so that the measured time holds what a training step would
pay; the form is the one that XLA is to turn into cuBLASLt's float8 kernels (GPUs from Hopper on; not yet run on one). For
every product of a block, forward: milliseconds of both, their ratio, and the error of the float8 product relative to the norm
of the exact one. It is no option of the trainer: it is to become one if the last line says more than 1.1. A line of JSON goes to
results.jsonl.
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
    """x and the scale by which it is to be multiplied again."""
    scale = jnp.maximum(jnp.abs(x).max().astype(jnp.float32), 1e-12) / LARGEST
    return (x.astype(jnp.float32) / scale).astype(FLOAT8), scale


def float8_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [M, I] · kernel [I, O], both rounded to float8 → bfloat16 [M, O]."""
    (a, a_scale), (b, b_scale) = in_float8(x), in_float8(kernel)
    wide = jax.lax.dot(a.astype(jnp.bfloat16) * a_scale.astype(jnp.bfloat16), b.astype(jnp.bfloat16) * b_scale.astype(jnp.bfloat16),
                       preferred_element_type=jnp.float32)
    return wide.astype(jnp.bfloat16)


def bfloat16_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.dot(x, kernel, preferred_element_type=jnp.float32).astype(jnp.bfloat16)


def milliseconds(product: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, repeats: int) -> float:
    """Of one call; calls are enqueued one after the other, since an accelerator's own time is shorter than a call's."""
    run = jax.jit(product)
    jax.block_until_ready(run(x, kernel))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = [run(x, kernel) for _ in range(repeats)]
        jax.block_until_ready(found)
        times.append((time.perf_counter() - began) / repeats * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", help=", ".join(PRESETS))
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if options.preset not in PRESETS:
        sys.exit(f"preset {options.preset}: there are {', '.join(PRESETS)}")
    _, width, _, ffn_width, _ = PRESETS[options.preset]
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, ffn_width), "down": (ffn_width, width)}
    print(f"{'':<6}{'I × O':>14}{'bfloat16 ms':>13}{'float8 ms':>11}{'gain':>7}{'error':>9}")
    rows = {}
    for name, (inputs, outputs) in shapes.items():
        x = jax.random.normal(jax.random.key(0), (options.tokens, inputs), jnp.bfloat16)
        kernel = 0.02 * jax.random.normal(jax.random.key(1), (inputs, outputs), jnp.bfloat16)
        plain, low = (milliseconds(product, x, kernel, options.repeats) for product in (bfloat16_product, float8_product))
        exact, found = (jax.jit(product)(x[:256], kernel).astype(jnp.float32) for product in (bfloat16_product, float8_product))
        error = float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
        rows[name] = {"bfloat16_ms": plain, "float8_ms": low, "error": error}
        print(f"{name:<6}{f'{inputs} × {outputs}':>14}{plain:>13.3f}{low:>11.3f}{plain / low:>7.2f}{error:>9.4f}", flush=True)
    plain, low = (sum(row[key] for row in rows.values()) for key in ("bfloat16_ms", "float8_ms"))
    print(f"all four: {plain / low:.2f} times as fast in float8")
    record.append("fp8_products", {"preset": options.preset, "tokens": options.tokens, "products": rows})


if __name__ == "__main__":
    main()
