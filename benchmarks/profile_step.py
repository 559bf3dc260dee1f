"""Show where a training step's time goes: the trace of JAX's profiler as a table.

    python benchmarks/profile_step.py [--preset=base] [--length=512] [--tokens=4096] [--case="unroll=false"] \
        [--steps=5] [--top=15]

On a CPU it prints the share of matrix products, attention (its two products and softmax), embedding tables (gathers,
scatters), elementwise work (GELU, LayerNorm, dropout, loss, casts), the optimizer with clipping, and gaps in which nothing
ran; then the most expensive operations one by one. An operation belongs to a part by its opcode and by the scope in which
the code was traced ("attention", "optimizer"). Operations run on several threads at once: shares are of the threads' busy
time, and a gap is a time in which no thread was busy.

On a GPU it prints the kernels: products, attention, our own kernels (Pallas), elementwise work, the optimizer, copies and
memsets, sorting and scattering, gaps; then the most expensive kernels with milliseconds and launches per step. Command buffers are
off (the script sets XLA's flag), because a trace has no names of operations while they are on. A step is a little slower
so.

A line of JSON is appended to benchmarks/results.jsonl.
"""

import argparse
import dataclasses
import gzip
import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import record
from allocation import HUGE_PAGES
from mlm_work import Case, Work

WITHOUT_COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer="
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S.*?)\s([\w\-]+)\(")
PRODUCT = re.compile(r"dot|gemm|matmul|convolution|ynn|cublas")  # in an operation's name, or in that of the library function it calls
TARGET = re.compile(r'custom_call_target="([^"]*)"')
SCOPE = re.compile(r'op_name="([^"]*)"')
# In the lower-case names of a GPU's kernels.
ATTENTION_KERNEL = re.compile(r"fmha|cudnn|flash|sdpa|attend|attention|mha_")
PRODUCT_KERNEL = re.compile(r"gemm|nvjet|cutlass|xmma|cublas|sm\d+_|splitk")
OWN_KERNEL = re.compile(r"pallas|triton_kernel|xla\.gpu\.triton")  # in the operation's name or in what it calls
CONTAINERS = ("while", "call", "conditional")  # operations whose time contains that of others


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


class Share(NamedTuple):
    """What ran in one place of the trace.

    Attributes:
      name: of the operation (CPU) or the kernel (GPU).
      part: the row of the table to which it belongs.
      start, duration: µs.
      operation: the instruction of the compiled step that it belongs to; None where the trace does not name a known one.
    """

    name: str
    part: str
    start: float
    duration: float
    operation: Operation | None


def events_of(trace: Path) -> list[dict[str, Any]]:
    """Return the events of a profiler's trace, among them those that name processes and threads."""
    path = max(trace.glob("plugins/profile/*/*.trace.json.gz"))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)["traceEvents"]


def names_of(events: list[dict[str, Any]], kind: str) -> dict[tuple[int, ...], str]:
    """Return {(process,): name} for the kind "process_name", {(process, thread): name} for "thread_name"."""
    keys = ("pid",) if kind == "process_name" else ("pid", "tid")
    return {tuple(int(event[key]) for key in keys): event["args"]["name"] for event in events if event.get("name") == kind}


def shares_on_cpu(events: list[dict[str, Any]], operations: dict[str, Operation]) -> list[Share]:
    """Return the operations of the step in a CPU's trace, without those that contain others."""
    shares = []
    for event in events:
        if event.get("ph") == "X":
            name = event.get("args", {}).get("hlo_op", event["name"])
            if name in operations and operations[name].opcode not in CONTAINERS:
                shares.append(Share(name, operations[name].part, event["ts"], event["dur"], operations[name]))
    return shares


def shares_on_gpu(events: list[dict[str, Any]], operations: dict[str, Operation]) -> list[Share]:
    """Return the kernels, copies and memsets in a GPU's trace: what is on a thread "Stream ..." of a process "... GPU ...".

    The other threads of those processes repeat the same times by operation, module and step.
    """
    processes, threads = names_of(events, "process_name"), names_of(events, "thread_name")
    shares = []
    for event in events:
        if event.get("ph") != "X":
            continue
        process, thread = event["pid"], event["tid"]
        if "GPU" in processes.get((process,), "") and "Stream" in threads.get((process, thread), ""):
            name = event["name"]
            operation = event.get("args", {}).get("hlo_op", "")
            shares.append(Share(name, kernel_part(name, operation, operations.get(operation)), event["ts"], event["dur"],
                                operations.get(operation)))
    return shares


def kernel_part(kernel: str, name: str, operation: Operation | None) -> str:
    """Return the row of a GPU's table to which a kernel belongs.

    Args:
      kernel: its name.
      name: of the operation that launched it; may be empty.
      operation: that operation, if the compiled step has it.
    """
    lower = kernel.lower()
    if "memcpy" in lower or "memset" in lower:
        return "copies and memsets"
    scope = operation.scope if operation else ""
    if "attention/" in scope or ATTENTION_KERNEL.search(lower):
        return "attention"
    if OWN_KERNEL.search(f"{name} {operation.called if operation else ''}"):
        return "own kernels"
    if PRODUCT_KERNEL.search(lower):
        return "products"
    if "sort" in lower or "scatter" in lower:
        return "sort and scatter"
    return "optimizer" if "optimizer/" in scope else "elementwise"


def busy(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union of (start, end) intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def table_of(shares: list[Share], wall: float, steps: int) -> dict[str, float]:
    """Return the milliseconds per step of each part and of the gaps, of `wall` µs of `steps` steps.

    Where several things ran at once, each part has its share of the time in which anything ran.
    """
    parts: defaultdict[str, float] = defaultdict(float)
    for share in shares:
        parts[share.part] += share.duration
    active, total = busy([(share.start, share.start + share.duration) for share in shares]), sum(parts.values())
    table = {part: time / total * active for part, time in sorted(parts.items(), key=lambda item: -item[1])}
    return {part: time / (1e3 * steps) for part, time in (table | {"gaps": max(0.0, wall - active)}).items()}


class Line(NamedTuple):
    """The shares of one name: milliseconds per step, launches per step, and one of them."""

    ms: float
    count: float
    share: Share


def top_of(shares: Iterable[Share], steps: int, top: int) -> list[Line]:
    """Return the `top` names with the most time, the most first."""
    time: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    example = {}
    for share in shares:
        time[share.name] += share.duration
        count[share.name] += 1
        example[share.name] = share
    most = sorted(time.items(), key=lambda item: -item[1])[:top]
    return [Line(us / (1e3 * steps), count[name] / steps, example[name]) for name, us in most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--case", default="", help="other fields of the case: see step_time.py")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--top", type=int, default=30)
    options = parser.parse_args()
    # Read at the start of a process only: how the command allocates memory (by glibc), and XLA's flags.
    wanted = HUGE_PAGES | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {WITHOUT_COMMAND_BUFFERS}".strip()}
    if WITHOUT_COMMAND_BUFFERS not in os.environ.get("XLA_FLAGS", "").split() or not HUGE_PAGES.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    case = Case(preset=options.preset, length=options.length, rows=max(1, options.tokens // options.length)).varied(options.case)
    work = Work(case)
    work.run(2)
    with tempfile.TemporaryDirectory() as scratch:
        with jax.profiler.trace(scratch):
            seconds = work.run(options.steps)
        events = events_of(Path(scratch))
    operations = operations_of(work.compiled.as_text() or "")
    on_cpu = jax.default_backend() == "cpu"
    shares = (shares_on_cpu if on_cpu else shares_on_gpu)(events, operations)
    if not shares:
        processes = names_of(events, "process_name")
        where = sorted(f"{processes.get(place[:1], '')}: {name}"
                       for place, name in names_of(events, "thread_name").items())
        sys.exit("the profiler's trace names nothing of the step: this backend writes its trace in another form. It has the threads\n"
                 + "\n".join(where))
    wall = sum(seconds) * 1e6
    table, top = table_of(shares, wall, options.steps), top_of(shares, options.steps, options.top)
    wall_ms = wall / (1e3 * options.steps)
    print(f"{case.preset} {case.rows} × {case.length} {options.case}: {wall_ms:.1f} ms per step under the profiler\n")
    print(f"{'':<20}{'ms/step':>10}{'share':>8}")
    for part, ms in table.items():
        print(f"{part:<20}{ms:>10.2f}{ms / wall_ms:>8.1%}")
    print(f"\nmost expensive {'operations' if on_cpu else 'kernels'}: busy ms per step, how often per step")
    for ms, count, share in top:
        operation = share.operation
        what = f"{operation.opcode:<12}{operation.shape.split('{')[0]:<26}" if on_cpu and operation else f"{share.name[:70]:<72}"
        print(f"{ms:>9.3f}{count:>7.1f}×  {share.part:<19}{what}{operation.scope[-70:] if operation else ''}")
    record.append("profile_step", {
        "case": dataclasses.asdict(case), "wall_ms": wall_ms, "parts_ms": table,
        "top": [{"name": share.name, "part": share.part, "ms": ms, "count": count} for ms, count, share in top]})


if __name__ == "__main__":
    main()
