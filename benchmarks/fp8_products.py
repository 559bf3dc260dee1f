"""Measure a block's matrix products in bfloat16 and in float8 with its scaling, and say which kernel XLA chose for each.

    python benchmarks/fp8_products.py [--preset=base] [--tokens=32768] [--repeats=20] [--seconds=60]

For every product of a block (qkv, out, up, down) and each of its passes it prints the milliseconds of both, their ratio, the
error of the float8 result relative to the norm of the bfloat16 one, and the kernels of the float8 program:

- forward: y = x · kernel. Float8 scales x and the kernel.
- backward: both gradients in one program, as in a step. Float8 scales dy once, and reads x and the kernel as the forward
  pass left them.
- dx, dw: each gradient alone, with the scaling of dy.
- exact: a forward pass with sums in float32 throughout, as the backward pass has. fast: a backward pass with shorter sums, as
  the forward pass has (`jaxplm.nn.float8.FAST`). scaling: the time of the scaling alone.

"f8" in the last column stands for `__cublas$lt$matmul$f8`, cuBLASLt's float8 product; "Triton" for a kernel that XLA wrote by
Triton, which can multiply float8 numbers too. Any other name means that the product is not in float8. All factors are random.

After the backward passes a line adds up both passes over the blocks of the preset. After --seconds the script stops. A line of
JSON is appended to benchmarks/results.jsonl.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import record
from mlm_work import PRESETS

from jaxplm.nn import float8
from jaxplm.nn.float8 import FACTOR, GRADIENT, float8_matmul, quantize

KERNELS = {  # a pattern of the compiled program → what the table calls it
    r"__cublas\$lt\$matmul\$f8": "f8",
    r"__cublas\$lt\$matmul(?!\$f8)": "cuBLASLt",
    r"__cublas\$gemm": "cuBLAS",
    r"__triton\w*": "Triton",
    r"__cudnn\$fusion": "cuDNN",
}


EMULATED = jax.default_backend() != "gpu"
FLOAT8 = partial(float8_matmul, emulated=EMULATED)


def kernels_of(program: str) -> str:
    """Return the kinds of matrix products in a compiled program's text, with their numbers: "2 f8, 1 Triton"."""
    counts = {name: len(re.findall(f'"{pattern}"', program)) for pattern, name in KERNELS.items()}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none of a GPU"


def bfloat16_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.dot(x, kernel, preferred_element_type=jnp.bfloat16)


def measured(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> tuple[float, Any, str]:
    """Return the milliseconds of one call, its result, and the kernels of the program.

    Many calls are enqueued, because an accelerator's own time is shorter than a call's.
    """
    compiled = jax.jit(function).lower(*arguments).compile()
    result = jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(repeats):
            result = compiled(*arguments)
        jax.block_until_ready(result)
        times.append((time.perf_counter() - began) / repeats * 1e3)
    return statistics.median(times), result, kernels_of(compiled.as_text() or "")


def distance(low: jax.Array, wide: jax.Array) -> float:
    """Return the distance of the first rows of two matrices, relative to the norm of the second."""
    low, wide = (array[:256].astype(jnp.float32) for array in (low, wide))
    return float(jnp.linalg.norm(low - wide) / jnp.linalg.norm(wide))


class Table:
    """The printed lines, and their figures."""

    def __init__(self, repeats: int, seconds: float) -> None:
        self.repeats, self.rows = repeats, dict[str, dict[str, Any]]()
        self.end, self.over = time.perf_counter() + seconds, False
        print(f"{'':<15}{'I × O':>13}{'bfloat16 ms':>13}{'float8 ms':>11}{'gain':>7}{'error':>8}  kernels in float8")

    def add(self, name: str, sizes: str, wide: tuple[Any, ...] | None, low: tuple[Any, ...]) -> None:
        """Measure a pair of calls (function, *arguments), and print a line; do nothing if the time is over."""
        self.over = self.over or time.perf_counter() > self.end
        if self.over:
            return
        wide_ms, wide_result, _ = (None, None, "") if wide is None else measured(wide[0], wide[1:], self.repeats)
        low_ms, low_result, kernels = measured(low[0], low[1:], self.repeats)
        row = {"float8_ms": low_ms, "kernels": kernels}
        line = f"{name:<15}{sizes:>13}"
        if wide_ms is None:
            line += f"{'':>13}{low_ms:>11.3f}{'':>15}"
        else:
            pairs = zip(jax.tree.leaves(low_result), jax.tree.leaves(wide_result), strict=True)
            row |= {"bfloat16_ms": wide_ms, "error": max(distance(*pair) for pair in pairs)}
            line += f"{wide_ms:>13.3f}{low_ms:>11.3f}{wide_ms / low_ms:>7.2f}{row['error']:>8.4f}"
        self.rows[f"{name} {sizes}"] = row
        print(line + f"  {kernels}", flush=True)


def factors(tokens: int, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return random x [tokens, inputs], kernel [inputs, outputs] and dy [tokens, outputs]."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((tokens, inputs), (inputs, outputs), (tokens, outputs))
    x, kernel, dy = (jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True))
    return x, 0.02 * kernel, 1e-4 * dy


def whole_passes(table: Table, name: str, tokens: int, inputs: int, outputs: int) -> None:
    """Add the forward and the backward pass of one product of a block."""
    x, kernel, dy = factors(tokens, inputs, outputs)
    sizes = f"{inputs} × {outputs}"
    table.add(f"{name} forward", sizes, (bfloat16_matmul, x, kernel), (FLOAT8, x, kernel))
    wide, low = (back_of(matmul, x, kernel) for matmul in (bfloat16_matmul, FLOAT8))
    table.add(f"{name} backward", sizes, (lambda back, dy: back(dy), wide, dy), (lambda back, dy: back(dy), low, dy))


def single_gradients(table: Table, name: str, tokens: int, inputs: int, outputs: int) -> None:
    """Add each of the two gradients of one product of a block."""
    x, kernel, dy = factors(tokens, inputs, outputs)
    wide, low = (back_of(matmul, x, kernel) for matmul in (bfloat16_matmul, FLOAT8))
    for part, gradient in (("dx", lambda back, dy: back(dy)[0]), ("dw", lambda back, dy: back(dy)[1])):
        table.add(f"{name} {part}", f"{inputs} × {outputs}", (gradient, wide, dy), (gradient, low, dy))


def back_of(matmul: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Any:
    """Return the backward pass of a product, with what the forward pass leaves."""
    return jax.jit(lambda x, kernel: jax.vjp(matmul, x, kernel)[1])(x, kernel)


def other_sums(table: Table, tokens: int, inputs: int, outputs: int) -> None:
    """Add the passes of a product with the sums of the other pass."""
    x, kernel, dy = factors(tokens, inputs, outputs)
    sizes = f"{inputs} × {outputs}"

    def exact(x: jax.Array, kernel: jax.Array) -> jax.Array:
        with mock.patch.object(float8, "FAST", float8.EXACT):
            return FLOAT8(x, kernel)

    def fast(back: Any, dy: jax.Array) -> Any:
        with mock.patch.object(float8, "EXACT", float8.FAST):
            return back(dy)

    table.add("down exact", sizes, (bfloat16_matmul, x, kernel), (exact, x, kernel))
    wide, low = (back_of(matmul, x, kernel) for matmul in (bfloat16_matmul, FLOAT8))
    table.add("down fast", sizes, (lambda back, dy: back(dy), wide, dy), (fast, low, dy))


def scaling_alone(table: Table, tokens: int, inputs: int) -> None:
    x, _, _ = factors(tokens, inputs, 16)
    for label, dtype in (("e4m3", FACTOR), ("e5m2", GRADIENT)):
        table.add(f"scaling {label}", f"{inputs}", None, (lambda x, dtype=dtype: quantize(x, dtype), x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", help=", ".join(PRESETS))
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.preset not in PRESETS:
        sys.exit(f"--preset={options.preset}: must be one of {', '.join(PRESETS)}")
    blocks, width, _, ffn_width, _ = PRESETS[options.preset]
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, ffn_width), "down": (ffn_width, width)}
    table = Table(options.repeats, options.seconds)
    for name, sizes in shapes.items():
        if not table.over:
            whole_passes(table, name, options.tokens, *sizes)
    if not table.over:
        wide, low = (blocks * sum(row[key] for row in table.rows.values()) for key in ("bfloat16_ms", "float8_ms"))
        print(f"all of {blocks} blocks: {wide:.2f} ms in bfloat16, {low:.2f} ms in float8, {wide / low:.2f} times as fast", flush=True)
    if not table.over:
        other_sums(table, options.tokens, ffn_width, width)
    for inputs in (width, 3 * width, ffn_width):
        if not table.over:
            scaling_alone(table, options.tokens, inputs)
    for name, sizes in shapes.items():
        if not table.over:
            single_gradients(table, name, options.tokens, *sizes)
    if table.over:
        print(f"stopped after {options.seconds:g} s (--seconds)")
    record.append("fp8_products", {"preset": options.preset, "tokens": options.tokens, "products": table.rows})


if __name__ == "__main__":
    main()
