"""Show where a training step's time goes: the trace of JAX's profiler as a table.

    python benchmarks/profile_step.py [--preset=base] [--length=512] [--tokens=4096] [--case="unroll=false"] \
        [--steps=5] [--top=15]

It prints the share of matrix products, attention (its two products and softmax), embedding tables (gathers, scatters),
elementwise work (GELU, LayerNorm, dropout, loss, casts), the optimizer with clipping, and gaps in which nothing ran;
then the most expensive operations one by one. An operation belongs to a part by its opcode and by the scope in which
the code was traced ("attention", "optimizer"). On a CPU, operations run on several threads at once: shares are of the
threads' busy time, and a gap is a time in which no thread was busy. A line of JSON is appended to
benchmarks/results.jsonl.
"""

import argparse
import dataclasses
import gzip
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import record
from allocation import HUGE_PAGES
from mlm_work import Case, Work

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S.*?)\s([\w\-]+)\(")
PRODUCT = re.compile(r"dot|gemm|matmul|convolution|ynn|cublas")  # in an operation's name, or in that of the library function it calls
TARGET = re.compile(r'custom_call_target="([^"]*)"')
SCOPE = re.compile(r'op_name="([^"]*)"')


class Operation(NamedTuple):
    """One instruction of the compiled step.

    Attributes:
      shape, opcode: as in the compiled program's text.
      scope: the path of scopes and primitives in which it was traced.
      called: its own name, and the name of the library function that it calls, if it does.
    """

    shape: str
    opcode: str
    scope: str
    called: str

    @property
    def part(self) -> str:
        """The row of the table to which its time belongs."""
        if "optimizer/" in self.scope:
            return "optimizer"
        if "attention/" in self.scope:
            return "attention"
        if self.opcode == "dot" or PRODUCT.search(self.called):
            return "products"
        if "gather" in self.scope or "scatter" in self.scope or self.opcode in ("gather", "scatter"):
            return "embedding tables"
        return "elementwise"


def operations_of(hlo: str) -> dict[str, Operation]:
    """Return {name: operation} for a compiled program's text."""
    operations = {}
    for line in hlo.splitlines():
        if match := INSTRUCTION.match(line):
            name, shape, opcode = match.groups()
            scope, target = SCOPE.search(line), TARGET.search(line)
            operations[name] = Operation(shape, opcode, scope.group(1) if scope else "", f"{name} {target.group(1) if target else ''}")
    return operations


def events_of(trace: Path) -> list[dict[str, Any]]:
    """Return the trace's events that have a name, a start and a duration in µs."""
    path = max(trace.glob("plugins/profile/*/*.trace.json.gz"))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def busy(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union of (start, end) intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--case", default="", help="other fields of the case: see step_time.py")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--top", type=int, default=15)
    options = parser.parse_args()
    if not HUGE_PAGES.items() <= os.environ.items():  # as the command runs; glibc reads it at the start of a process only
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | HUGE_PAGES)
    case = Case(preset=options.preset, length=options.length, rows=max(1, options.tokens // options.length)).varied(options.case)
    work = Work(case)
    work.run(2)
    with tempfile.TemporaryDirectory() as scratch:
        with jax.profiler.trace(scratch):
            seconds = work.run(options.steps)
        events = events_of(Path(scratch))
    operations = operations_of(work.compiled.as_text() or "")
    parts: Counter[str] = Counter()
    single: Counter[str] = Counter()
    intervals = []
    for event in events:
        name = event.get("args", {}).get("hlo_op", event["name"])
        if name in operations and operations[name].opcode not in ("while", "call", "conditional"):  # these contain others
            parts[operations[name].part] += event["dur"]
            single[name] += event["dur"]
            intervals.append((event["ts"], event["ts"] + event["dur"]))
    if not intervals:
        sys.exit("the profiler's trace names no operation of the step: this backend writes its trace in another form")
    wall, active = sum(seconds) * 1e6, busy(intervals)
    total = sum(parts.values())
    in_ms = 1e3 * options.steps
    print(f"{case.preset} {case.rows} × {case.length} {options.case}: {wall / in_ms:.1f} ms per step under the profiler\n")
    print(f"{'':<20}{'ms/step':>10}{'share':>8}")
    table = {part: time / total * active for part, time in parts.most_common()} | {"gaps": max(0.0, wall - active)}
    for part, time in table.items():
        print(f"{part:<20}{time / in_ms:>10.2f}{time / wall:>8.1%}")
    print("\nmost expensive operations (busy ms per step)")
    for name, time in single.most_common(options.top):
        operation = operations[name]
        print(f"{time / in_ms:>9.2f}  {operation.part:<17}{operation.opcode:<12}{operation.shape.split('{')[0]:<26}{operation.scope[-70:]}")
    record.append("profile_step", {"case": dataclasses.asdict(case), "wall_ms": wall / in_ms,
                                   "parts_ms": {part: time / in_ms for part, time in table.items()}})


if __name__ == "__main__":
    main()
