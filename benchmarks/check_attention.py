"""Compare the kernels for this machine's accelerator with their plain forms: values, gradients, and the time of attention.

  python benchmarks/check_attention.py [--quick]

It prints one line per flash kernel and shape of packed rows with padding: the largest error of the output and of dq, dk and dv, as a
share of the largest value of plain attention in float32; and the milliseconds of a forward and backward pass of both. On an NVIDIA
GPU, it also prints the errors of the kernels between the products (`jaxplm.nn.kernels`), by width. --quick checks the sizes of
RoBERTa-base and large in rows of 512 alone, without times.
A line of JSON is appended to benchmarks/results.jsonl.
Exit status: 0 if all errors are within the tolerance of the check at the start of a run, 1 if not, 2 where there is no
flash kernel.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import record

from jaxplm.devices.compute import compiler_options, flash_kernels
from jaxplm.nn.attention.dispatch import attend, kernel_for, segments_of
from jaxplm.nn.attention.selfcheck import TOLERANCE, differences, packed_ids
from jaxplm.nn.kernels import selfcheck as kernel_check
from jaxplm.nn.layers import Compute

# B, L, H, Dh: base-size rows of several lengths (one is not a multiple of 128), narrow heads, wide ones, one long row.
SHAPES = ((64, 128, 12, 64), (64, 512, 12, 64), (16, 400, 12, 64), (16, 512, 12, 32), (8, 1024, 8, 128), (2, 4096, 12, 64))
WIDTHS = (128, 312, 768, 1024, 4096)  # D; one is no multiple of a tile
QUICK_SHAPES, QUICK_WIDTHS = ((16, 512, 12, 64),), (768, 1024)


def milliseconds(kernel: str, rows: int, length: int, heads: int, width: int, repeats: int = 20) -> float:
    """Return the milliseconds of a forward and a backward pass."""
    ids = jnp.asarray(packed_ids(rows, length))
    compute = Compute("bfloat16", "bfloat16", attention=kernel)
    most = int(ids.max())

    def loss(qkv: jax.Array, ids: jax.Array) -> jax.Array:
        return attend(qkv, segments_of(ids, compute, (width,), most), 0.0, None, compute).astype(jnp.float32).sum()

    run: Callable[..., object] = jax.jit(jax.grad(loss))
    qkv = jax.random.normal(jax.random.key(0), (rows, length, 3, heads, width), jnp.bfloat16)
    jax.block_until_ready(run(qkv, ids))
    began = time.perf_counter()
    gradient: object = None
    for _ in range(repeats):
        gradient = run(qkv, ids)
    jax.block_until_ready(gradient)
    return (time.perf_counter() - began) / repeats * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes, no times")
    options = parser.parse_args()
    shapes_here, widths = (QUICK_SHAPES, QUICK_WIDTHS) if options.quick else (SHAPES, WIDTHS)
    device = jax.local_devices()[0]
    kernels, reason = flash_kernels(device, "bfloat16")
    if not kernels:
        print(f"{device.device_kind}: {reason}")
        return 2
    print(f"{device.device_kind}, jax {jax.__version__}: {', '.join(kernels)} compared with plain attention, tolerance {TOLERANCE:g}")
    wrong = False
    shapes = []
    for kernel, (rows, length, heads, width) in itertools.product(kernels, shapes_here):
        assert kernel_for(kernel, length, width) == kernel
        errors = differences(kernel, rows=rows, length=length, heads=heads, head_width=width, options=compiler_options())
        too_large = not all(error <= TOLERANCE for error in errors.values())
        wrong |= too_large
        times = [] if options.quick else [milliseconds(name, rows, length, heads, width) for name in (kernel, "plain")]
        found = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
        print(f"{kernel} {rows:>3} × {length:>4}, {heads} × {width:>3}: {found}"
              + (f"; {times[0]:.2f} ms, plain {times[1]:.2f} ms" if times else "") + ("  WRONG" if too_large else ""), flush=True)
        shapes.append({"kernel": kernel, "rows": rows, "length": length, "heads": heads, "width": width, "errors": errors}
                      | (dict(zip(("ms", "plain_ms"), times, strict=True)) if times else {}))
    between = {}
    for width in widths if jax.default_backend() == "gpu" else ():
        errors = between[width] = kernel_check.differences(width=width, rows=1000, options=compiler_options())
        too_large = not all(error <= kernel_check.TOLERANCE for error in errors.values())
        wrong |= too_large
        print(f"{width} wide: " + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()) + ("  WRONG" if too_large else ""))
    record.append("check_attention", {"tolerance": TOLERANCE, "wrong": wrong, "shapes": shapes, "between products": between})
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
