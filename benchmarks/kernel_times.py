"""Measure the Triton kernels of jaxplm.nn alone on an NVIDIA GPU, with other sizes of their tiles, beside XLA's and cuDNN's.

    python benchmarks/kernel_times.py [--tokens=32768] [--width=768] [--ffn=3072] \
        [--length=512] [--texts=1,4,16] [--only=norm,gelu,attention]

It prints a line per kernel and sizes: ms, and for the passes over activations the bytes that must be read and written, divided by the
time. Compare it with the rate of a copy, printed first. Every variant is compiled before the first is measured, by 16 threads, because
a compilation uses the GPU too. The sizes in the package are the fastest of these.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm.nn.attention import segmented
from jaxplm.nn.attention.cudnn import attend_cudnn, runs_of
from jaxplm.nn.cpu_kernels import erf_gelu, layer_norm_rows
from jaxplm.nn.dropout import dropout, key_words
from jaxplm.nn.kernels import bias_gelu, residual_norm
from jaxplm.nn.kernels.tiles import Sizes

REPEATS, ROUNDS = 20, 5


def random_array(*shape: int, seed: int = 0) -> jax.Array:
    """Return bfloat16 values from N(0, 1)."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


def milliseconds(run: Any, arguments: tuple[Any, ...]) -> float:
    """Return the time of a compiled function, median of ROUNDS, each of REPEATS calls."""
    jax.block_until_ready(run(*arguments))
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        outputs = [run(*arguments) for _ in range(REPEATS)]
        jax.block_until_ready(outputs)
        times.append((time.perf_counter() - began) / REPEATS)
        del outputs
    return statistics.median(times) * 1e3


def with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a gradient and the arguments that computes the gradients of the arguments."""
    def run(gradient: jax.Array, *arguments: Any) -> Any:
        _, back = jax.vjp(function, *arguments)
        return back(gradient)
    return run


Job = tuple[str, Callable[..., Any], tuple[Any, ...], float, Callable[[], None]]  # name, function, arguments, bytes, what sets the sizes


def norm_jobs(tokens: int, width: int) -> list[Job]:
    x, y, d = (random_array(tokens, width, seed=seed) for seed in range(3))
    bias, scale, shift, key = jnp.zeros((width,), jnp.bfloat16), jnp.ones((width,)), jnp.zeros((width,)), jax.random.key(1)
    words = jnp.stack(key_words(key))
    given, array = (x, y, bias, words, scale, shift), x.nbytes

    def plain(x, y, bias, words, scale, shift):
        del words
        return layer_norm_rows(x + dropout(y + bias[None], 0.1, key), scale, shift, 1e-5)

    def forward(x, y, bias, words, scale, shift):
        return residual_norm._forward(x, y, bias, words, scale, shift, 0.1, 1e-5, None, False)

    saved = jax.jit(forward)(*given)[1]

    def backward(d, saved):
        return residual_norm._backward(0.1, 1e-5, None, False, saved, d)

    jobs: list[Job] = [("norm: XLA forward", plain, given, 4 * array, lambda: None),
                       ("norm: XLA forward and backward", lambda d, x, y, *rest: with_gradient(
                           lambda x, y, bias, scale, shift: plain(x, y, bias, words, scale, shift))(d, x, y, *rest),
                        (d, x, y, bias, scale, shift), 8 * array, lambda: None)]
    for rows, warps in ((1, 1), (2, 2), (4, 4), (8, 8), (4, 8), (2, 4), (8, 4), (1, 4)):
        jobs.append((f"norm forward rows={rows} warps={warps}", forward, given, 4 * array,
                     lambda rows=rows, warps=warps: setattr(residual_norm, "FORWARD", Sizes(rows, warps))))
    for (rows, warps), programs in itertools.product(((1, 1), (1, 2), (2, 2), (1, 4)), (792, 1056, 1320, 1584, 2112)):
        jobs.append((f"norm backward rows={rows} warps={warps} programs={programs}", backward, (d, saved), 4 * array,
                     lambda sizes=Sizes(rows, warps, programs=programs): setattr(residual_norm, "BACKWARD", sizes)))
    return jobs


def gelu_jobs(tokens: int, ffn: int) -> list[Job]:
    y, d, bias = random_array(tokens, ffn), random_array(tokens, ffn, seed=1), random_array(ffn)

    def forward(y, bias):
        return bias_gelu._forward(y, bias, None, False)[0]

    def backward(d, y, bias):
        return bias_gelu._backward(None, False, (y, bias), d)

    def plain(y, bias):
        return erf_gelu(y + bias[None])

    jobs: list[Job] = [("gelu: XLA forward", plain, (y, bias), 2 * y.nbytes, lambda: None),
                       ("gelu: XLA backward", with_gradient(plain), (d, y, bias), 3 * y.nbytes, lambda: None)]

    for columns, (rows, warps) in itertools.product((256, 512, 1024), ((4, 4), (8, 4), (16, 4), (1, 1), (4, 1))):
        jobs.append((f"gelu forward columns={columns} rows={rows} warps={warps}", forward, (y, bias), 2 * y.nbytes,
                     lambda sizes=Sizes(rows, warps, columns): setattr(bias_gelu, "FORWARD", sizes)))
    for columns, (rows, warps), programs in itertools.product((256, 512), ((1, 1), (2, 1), (4, 1), (2, 2), (8, 4)), (2112, 4224, 8448)):
        jobs.append((f"gelu backward columns={columns} rows={rows} warps={warps} programs={programs}", backward, (d, y, bias), 3 * y.nbytes,
                     lambda sizes=Sizes(rows, warps, columns, programs): setattr(bias_gelu, "BACKWARD", sizes)))
    return jobs


def random_ids(rows: int, length: int, texts: int) -> np.ndarray:
    """Return segment ids [rows, length] of `texts` texts of random lengths that fill each row."""
    random = np.random.default_rng(0)
    cuts = np.zeros((rows, length), np.int32)
    for row in cuts:
        row[random.choice(np.arange(1, length), texts - 1, replace=False)] = 1
    return 1 + np.cumsum(cuts, axis=1, dtype=np.int32)


def attention_jobs(tokens: int, width: int, length: int, texts: tuple[int, ...]) -> list[Job]:
    shape = (tokens // length, length, width // 64, 64)
    q, k, v, d = (random_array(*shape, seed=seed) for seed in range(4))
    qkv = jnp.stack((q, k, v), 2)
    jobs: list[Job] = []
    for count in texts:
        ids = jnp.asarray(random_ids(*shape[:2], count))
        runs, bounds = runs_of(ids, count), segmented.bounds_of(ids)

        def cudnn(q, k, v, runs=runs):
            return attend_cudnn(q, k, v, runs)

        def forward(qkv, bounds=bounds):
            mixed, (*_, log_sums) = segmented._forward(qkv, bounds, False, False)
            return mixed, log_sums

        def backward(qkv, mixed, log_sums, d, bounds=bounds):
            return segmented._backward(False, False, (qkv, bounds, mixed, log_sums), d)[0]

        saved = jax.jit(forward)(qkv)
        name = f"{length} tokens, {count} texts:"
        jobs.append((f"{name} cuDNN forward", cudnn, (q, k, v), 0, lambda: None))
        jobs.append((f"{name} cuDNN forward and backward", with_gradient(cudnn), (d, q, k, v), 0, lambda: None))
        for which, function, arguments in (("FORWARD", forward, (qkv,)), ("BACKWARD", backward, (qkv, *saved, d))):
            for sizes in ((64, 64, 4, 2), (64, 64, 4, 3), (64, 64, 4, 4), (64, 32, 4, 3), (64, 128, 4, 2), (128, 64, 8, 2), (128, 64, 4, 2),
                          (128, 32, 4, 3), (32, 64, 4, 3), (64, 64, 8, 3), (32, 64, 2, 3), (32, 32, 2, 3)):
                jobs.append((f"{name} segmented {which.lower()} here, there, warps, stages = {', '.join(map(str, sizes))}", function,
                             arguments, 0, lambda which=which, sizes=segmented.Sizes(*sizes): setattr(segmented, which, sizes)))
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--ffn", type=int, default=3072)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--texts", default="1,4,16")
    parser.add_argument("--only", default="norm,gelu,attention")
    options = parser.parse_args()
    jobs: list[Job] = []
    big = random_array(options.tokens, 8 * options.width)
    jobs.append(("copy", lambda x: -x, (big,), 2 * big.nbytes, lambda: None))
    for part in options.only.split(","):
        if part == "norm":
            jobs += norm_jobs(options.tokens, options.width)
        elif part == "gelu":
            jobs += gelu_jobs(options.tokens, options.ffn)
        elif part == "attention":
            jobs += attention_jobs(options.tokens, options.width, options.length, tuple(map(int, options.texts.split(","))))
        else:
            parser.error(f"--only={part}: must be of norm, gelu, attention")
    lowered = []
    for _, function, arguments, _, choose in jobs:
        choose()
        # A function of its own per variant: JAX would answer with the program that it traced before.
        lowered.append(jax.jit(lambda *given, function=function: function(*given)).lower(*arguments))

    def compiled(program: jax.stages.Lowered) -> Any:
        try:
            return program.compile()
        except Exception as error:  # a variant that the compiler refuses is a line of the table
            return " ".join(str(error).split())[:100]

    with ThreadPoolExecutor(16) as pool:
        programs = list(pool.map(compiled, lowered))
    for (name, _, arguments, moved, _), program in zip(jobs, programs, strict=True):
        if isinstance(program, str):
            print(f"{name:<62}{program}", flush=True)
            continue
        took = milliseconds(program, arguments)
        print(f"{name:<62}{took:8.4f} ms" + (f"{moved / took / 1e9:8.2f} TB/s" if moved else ""), flush=True)


if __name__ == "__main__":
    main()
