"""Measure the MLM training step by model and row sizes: time, tokens per second, share of the machine's limit, memory.

    python benchmarks/step_time.py [--presets=base,large] [--lengths=128,512] [--tokens=4096,16384] [--steps=10] \
        [--variants="as it is; unroll=false; masked=1.0; attention=plain; texts=8"] \
        [--xla_flags="; --xla_…=true; --xla_…=0 --xla_…=1"] [--together]

One step is forward, backward, clipping and AdamW on rows of random tokens (`--tokens` is rows × length). Rows are full,
so every token is real. Each case runs in a process of its own, one after the other. A variant changes fields of the
case (`mlm_work.Case`): preset, rows, length, texts, masked, layers, vocab, dropout, dtype, unroll, attention, kernels,
remat, logit_parts. `--xla_flags` are sets of XLA's flags, separated by semicolons: each case runs with each set ("" is none).

It prints one line per case. FLOPs are counted twice: analytically and by the compiler. The analytic count has the
matrix products of one forward and two backward passes (projections, attention over whole rows, the head at the masked
positions); what is recomputed does not count. MFU is the analytic count divided by the time and by the rate of a large
matrix product, measured in the same process, times the number of devices. So 100 % is what this machine can multiply,
not a number from a data sheet. Peak memory is that of one device. "build s" are the seconds of tracing and compilation. A
line of JSON with everything is appended to benchmarks/results.jsonl.

--together compiles all cases at once in one process and then measures them one after the other, which takes a fraction of
the time on a machine with many processors. Peak memory is then the compiler's plan, and seconds of compilation are those
beside other compilations.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import record
from allocation import HUGE_PAGES
from mlm_work import PRESETS, Case, Work, flops_of_step, product_rate

from jaxplm import nn

WARM_UP = 2
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def work(case: Case, steps: int) -> None:
    """Measure a case in this process and print a line of JSON."""
    limit = product_rate(case.dtype) * jax.device_count()
    step = Work(case)
    seconds = step.run(WARM_UP + steps)[WARM_UP:]
    print(json.dumps({"seconds": seconds, "limit": limit, "flops": flops_of_step(case), "compiler_flops": step.compiler_flops(),
                      "peak_bytes": step.peak_bytes(), "build": step.seconds_to_build}))


class Building(NamedTuple):
    """A case whose step is being compiled."""

    work: Work
    compiled: Future[None]


def measure_together(cases: list[tuple[str, Case]], options: argparse.Namespace, results: list[dict[str, Any]]) -> bool:
    """Compile all (variant, case) in this process, then measure them in turn; print a line and append the figures for each.

    Return whether all compilations have ended; one that has not ended after --compile_limit seconds is left behind.
    """
    deadline = time.monotonic() + options.compile_limit
    pool = ThreadPoolExecutor(os.cpu_count())
    waiting = [(variant, case, building(case, pool, deadline)) for variant, case in cases]
    params: dict[tuple[Any, ...], Any] = {}
    for _, case, step in waiting:
        if not isinstance(step, str) and case.encoder_sizes() not in params:
            params[case.encoder_sizes()] = nn.random_params(case.encoder(), 0)
    futures = [step.compiled for *_, step in waiting if not isinstance(step, str)]
    left = wait(futures, max(0.0, deadline - time.monotonic())).not_done  # nothing else computes while a case is measured
    pool.shutdown(wait=False, cancel_futures=True)
    limits: dict[str, float] = {}
    for variant, case, step in waiting:
        if isinstance(step, str):
            figures: dict[str, Any] = {"error": step}
        elif step.compiled in left:
            figures = {"error": f"not compiled in {options.compile_limit:g} s"}
        else:
            figures = measured_here(step, params[case.encoder_sizes()], options.steps, limits)
        publish(variant, case, "", figures, results)
    return not left


def building(case: Case, pool: ThreadPoolExecutor, deadline: float) -> Building | str:
    """Return the traced step of a case and its compilation in `pool`, or in one line why there is none."""
    if time.monotonic() > deadline:
        return "not traced in time"
    try:
        work = Work(case, ready=False)
    except Exception as error:  # a type of numbers that this device does not have
        return error_of(str(error))
    return Building(work, pool.submit(work.compile))


def measured_here(step: Building, params: Any, steps: int, limits: dict[str, float]) -> dict[str, Any]:
    """Return the figures of a case that is compiled, or {'error': one line}. `limits` has the rates of products so far, by type."""
    work, case = step.work, step.work.case
    try:
        step.compiled.result()
        work.place(params)
        seconds = work.run(WARM_UP + steps)[WARM_UP:]
        if case.dtype not in limits:
            limits[case.dtype] = product_rate(case.dtype) * jax.device_count()
        return timed(case, {"seconds": seconds, "limit": limits[case.dtype], "flops": flops_of_step(case),
                            "compiler_flops": work.compiler_flops(), "peak_bytes": work.peak_bytes(planned=True),
                            "build": work.seconds_to_build})
    except Exception as error:  # out of memory, or the compiler's: the other cases are worth measuring
        return {"error": error_of(str(error))}
    finally:
        work.free()


def error_of(text: str) -> str:
    """Return the line that stands in the table for an error."""
    return "out of memory" if OUT_OF_MEMORY in text else (text.strip().splitlines() or ["it fails"])[-1]


def timed(case: Case, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a case with what follows from the seconds of its steps."""
    step = statistics.median(figures["seconds"])
    return figures | {"step": step, "tokens_per_second": case.rows * case.length / step, "rate": figures["flops"] / step,
                      "mfu": figures["flops"] / step / figures["limit"]}


def measure(case: Case, steps: int, flags: str = "") -> dict[str, Any]:
    """Run a case in a process of its own, with XLA's `flags`; return its figures, or {'error': one line}."""
    command = [sys.executable, __file__, f"--steps={steps}", f"--worker={json.dumps(dataclasses.asdict(case))}"]
    environment = os.environ | HUGE_PAGES | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"error": error_of(done.stderr if OUT_OF_MEMORY in done.stderr else done.stderr.strip() or f"status {done.returncode}")}
    return timed(case, json.loads(done.stdout.strip().splitlines()[-1]))


HEADER = f"{'':<44}{'ms/step':>10}{'tokens/s':>12}{'TFLOP/s':>9}{'MFU':>7}{'by compiler':>13}{'peak GiB':>10}{'build s':>9}"


def line_of(name: str, figures: dict[str, Any]) -> str:
    """Return the line of the table for a case's figures."""
    if "error" in figures:
        return f"{name:<44}{figures['error']}"
    f = figures
    return (f"{name:<44}{f['step'] * 1e3:>10,.1f}{f['tokens_per_second']:>12,.0f}{f['rate'] / 1e12:>9.3f}{f['mfu']:>7.1%}"
            f"{f['compiler_flops'] / f['step'] / f['limit']:>13.1%}{f['peak_bytes'] / 2**30:>10.2f}{f['build']:>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="base,large", help=", ".join(PRESETS))
    parser.add_argument("--lengths", default="128,512")
    parser.add_argument("--tokens", default="4096", help="tokens per batch: rows × length")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--variants", default="as it is")
    parser.add_argument("--xla_flags", default="")
    parser.add_argument("--together", action="store_true", help="compile all cases at once, in one process")
    parser.add_argument("--compile_limit", type=float, default=600.0, help="seconds for all compilations of --together")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(Case(**json.loads(options.worker)), options.steps)

    if options.together and options.xla_flags:
        parser.error("--xla_flags: with --together, all cases are in one process, which reads flags once; set XLA_FLAGS")

    record.stopped_by_exit()
    results: list[dict[str, Any]] = []
    ended = True
    print(HEADER)
    try:
        if options.together:
            ended = measure_together([(variant, case) for variant, case, _ in cases_of(options)], options, results)
        else:
            for variant, case, flags in cases_of(options):
                publish(variant, case, flags, measure(case, options.steps, flags), results)
    finally:
        if measured := [f["limit"] for f in results if "limit" in f]:
            print(f"a large matrix product: {statistics.median(measured) / 1e12:.3f} TFLOP/s")
        record.append("step_time", {"cases": results})
    if not ended:
        sys.stdout.flush()
        os._exit(0)  # Python would wait for the compilations that were left behind


def cases_of(options: argparse.Namespace) -> Iterator[tuple[str, Case, str]]:
    """Yield (variant, case, XLA's flags) of what is to be measured."""
    for preset in options.presets.split(","):
        for length in map(int, options.lengths.split(",")):
            for tokens in map(int, options.tokens.split(",")):
                for variant, flags in itertools.product(options.variants.split(";"), options.xla_flags.split(";")):
                    variant, flags = variant.strip(), flags.strip()
                    base = Case(preset=preset, length=length, rows=max(1, tokens // length))
                    yield variant, base if variant == "as it is" else base.varied(variant), flags


def publish(variant: str, case: Case, flags: str, figures: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Print the line of a case and append its figures to `results`."""
    print(line_of(f"{case.preset} {case.rows} × {case.length} {variant} {flags}".strip(), figures), flush=True)
    results.append({"case": dataclasses.asdict(case), "variant": variant, "xla_flags": flags} | figures)


if __name__ == "__main__":
    main()
