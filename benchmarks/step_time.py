"""Measure the MLM training step by model and row sizes: time, tokens per second, share of the machine's limit, memory.

    python benchmarks/step_time.py [--presets=base,large] [--lengths=128,512] [--tokens=4096,16384] [--steps=10] \
        [--variants="as it is; unroll=false; masked=1.0; attention=plain; texts=8"] \
        [--xla_flags="; --xla_…=true; --xla_…=0 --xla_…=1"]

One step is forward, backward, clipping and AdamW on rows of random tokens (`--tokens` is rows × length). Rows are full,
so every token is real. Each case runs in a process of its own, one after the other. A variant changes fields of the
case (`mlm_work.Case`): preset, rows, length, texts, masked, layers, vocab, dropout, dtype, unroll, attention, remat,
logit_parts. `--xla_flags` are sets of XLA's flags, separated by semicolons: each case runs with each set ("" is none).

It prints one line per case. FLOPs are counted twice: analytically and by the compiler. The analytic count has the
matrix products of one forward and two backward passes (projections, attention over whole rows, the head at the masked
positions); what is recomputed does not count. MFU is the analytic count divided by the time and by the rate of a large
matrix product, measured in the same process, times the number of devices. So 100 % is what this machine can multiply,
not a number from a data sheet. Peak memory is that of one device. A line of JSON with everything is appended to
benchmarks/results.jsonl.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import jax
import record
from allocation import HUGE_PAGES
from mlm_work import PRESETS, Case, Work, flops_of_step, product_rate

WARM_UP = 2
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def work(case: Case, steps: int) -> None:
    """Measure a case in this process and print a line of JSON."""
    limit = product_rate(case.dtype) * jax.device_count()
    step = Work(case)
    seconds = step.run(WARM_UP + steps)[WARM_UP:]
    print(json.dumps({"seconds": seconds, "limit": limit, "flops": flops_of_step(case), "compiler_flops": step.compiler_flops(),
                      "peak_bytes": step.peak_bytes(), "build": step.seconds_to_build}))


def measure(case: Case, steps: int, flags: str = "") -> dict[str, Any]:
    """Run a case in a process of its own, with XLA's `flags`; return its figures, or {'error': one line}."""
    command = [sys.executable, __file__, f"--steps={steps}", f"--worker={json.dumps(dataclasses.asdict(case))}"]
    environment = os.environ | HUGE_PAGES | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"error": "out of memory" if OUT_OF_MEMORY in done.stderr else lines[-1]}
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    step = statistics.median(figures["seconds"])
    return figures | {"step": step, "tokens_per_second": case.rows * case.length / step, "rate": figures["flops"] / step,
                      "mfu": figures["flops"] / step / figures["limit"]}


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
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(Case(**json.loads(options.worker)), options.steps)

    record.stopped_by_exit()
    results: list[dict[str, Any]] = []
    print(HEADER)
    try:
        measure_all(options, results)
    finally:
        if measured := [f["limit"] for f in results if "limit" in f]:
            print(f"a large matrix product: {statistics.median(measured) / 1e12:.3f} TFLOP/s")
        record.append("step_time", {"cases": results})


def measure_all(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Measure all cases one after the other; print a line for each and append its figures to `results`."""
    for preset in options.presets.split(","):
        for length in map(int, options.lengths.split(",")):
            for tokens in map(int, options.tokens.split(",")):
                for variant, flags in itertools.product(options.variants.split(";"), options.xla_flags.split(";")):
                    variant, flags = variant.strip(), flags.strip()
                    base = Case(preset=preset, length=length, rows=max(1, tokens // length))
                    case = base if variant == "as it is" else base.varied(variant)
                    figures = measure(case, options.steps, flags)
                    print(line_of(f"{case.preset} {case.rows} × {case.length} {variant} {flags}".strip(), figures), flush=True)
                    results.append({"case": dataclasses.asdict(case), "variant": variant, "xla_flags": flags} | figures)


if __name__ == "__main__":
    main()
