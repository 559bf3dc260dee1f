"""Print the tables of gpu_checks.sh and gpu_checks_long.sh from the records that their benchmarks appended.

    python benchmarks/gpu_summary.py OUT

It reads OUT/parts.tsv (status and seconds of each part), OUT/results.jsonl and the metrics.jsonl of OUT/runs. A part that did
not run, or not to its end, is named with what it left. JAX is not imported.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def step_lines(record: Record) -> Iterator[str]:
    cases = record["cases"]
    if cases:
        yield f"{'the step':<52}{'ms':>9}{'tokens/s':>12}{'MFU':>8}{'peak GiB':>10}{'build s':>9}"
    for case in cases:
        sizes = case["case"]
        name = f"{sizes['preset']} {sizes['rows']} × {sizes['length']} {case['variant']} {case['xla_flags']}".strip()
        if "error" in case:
            yield f"{name:<52}  {case['error']}"
        else:
            yield (f"{name:<52}{case['step'] * 1e3:>9.1f}{case['tokens_per_second']:>12,.0f}{case['mfu']:>8.1%}"
                   f"{case['peak_bytes'] / 2**30:>10.2f}{case['build']:>9.1f}")
    if measured := [case["limit"] for case in cases if "limit" in case]:
        yield f"{'a large matrix product of random factors':<52}{statistics.median(measured) / 1e12:>9.3f} TFLOP/s"


def attention_lines(record: Record) -> Iterator[str]:
    errors = [of["errors"] for of in record["shapes"]] + list(record["between products"].values())
    worst = max(error for of in errors for error in of.values())
    yield f"kernels beside plain: largest error {worst:.4f}, tolerance {record['tolerance']:g}{'  WRONG' if record['wrong'] else ''}"
    for of in record["shapes"]:
        times = f", {of['ms']:.2f} ms, plain {of['plain_ms']:.2f} ms" if "ms" in of else ""
        yield (f"  {of['kernel']} {of['rows']} × {of['length']}, {of['heads']} × {of['width']}: largest error"
               f" {max(of['errors'].values()):.4f}{times}")
    for width, of in record["between products"].items():
        yield f"  between the products, {width} wide: " + ", ".join(f"{name} {error:.4f}" for name, error in of.items())


def profile_lines(record: Record) -> Iterator[str]:
    yield f"under the profiler, without command buffers: {record['wall_ms']:.1f} ms per step"
    yield "  " + ", ".join(f"{part} {ms:.2f}" for part, ms in record["parts_ms"].items())
    for kernel in record["top"][:20]:
        yield f"{kernel['ms']:>9.3f} ms{kernel['count']:>7.1f}×  {kernel['part']:<19}{kernel['name'][:70]}"


def ratio_lines(medians: dict[str, float], unit: str) -> Iterator[str]:
    for name, rate in medians.items():
        yield f"{name:<44}{rate:>12,.0f} {unit}{medians.get('jaxplm', float('nan')) / rate:>9.2f}×"


def torch_lines(record: Record) -> Iterator[str]:
    yield f"{record['rows']} × {record['length']}: jaxplm beside PyTorch"
    yield from ratio_lines(record["tokens_per_second"], "tokens/s")


def embed_lines(record: Record) -> Iterator[str]:
    yield f"embeddings of {record['texts']:,} texts: jaxplm beside PyTorch"
    yield from ratio_lines(record["texts_per_second"], "texts/s")


def finetune_lines(record: Record) -> Iterator[str]:
    medians = record["medians"]
    yield from ratio_lines({name: of["tokens_per_second"] for name, of in medians.items()}, "tokens/s")
    for name, of in medians.items():
        yield f"{name:<44}{record['metric']} {of['test']:.4f}, training {of['training']:.1f} s, wall {of['wall']:.1f} s"


def curve_lines(record: Record) -> Iterator[str]:
    for name, apart in record["apart"].items():
        yield (f"{name} beside {record['first']}: averaged losses differ by at most {apart['apart_max']:.3%},"
               f" the mean of all by {apart['mean_apart']:+.3%}")
    for name in record.get("left_out", ()):
        yield f"{name}: left out"
    for name, loss in record.get("last", {}).items():
        yield f"  {name}: loss of the last steps {loss:.4f}"
    for name, losses in record.get("validation", {}).items():
        yield f"  {name}: validation loss {' → '.join(f'{loss:.4f}' for loss in losses)}"


def float8_lines(record: Record) -> Iterator[str]:
    for name, of in record["products"].items():
        beside = f", bfloat16 {of['bfloat16_ms']:.3f} ms, error {of['error']:.4f}" if "bfloat16_ms" in of else ""
        yield f"{name:<34} float8 {of['float8_ms']:.3f} ms{beside}; {of['kernels']}"


def startup_lines(record: Record) -> Iterator[str]:
    medians = {kind: statistics.median(seconds) for kind, seconds in record["seconds"].items() if seconds}
    yield "seconds to the first finished step: " + ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in medians.items())


def scaling_lines(record: Record) -> Iterator[str]:
    yield f"by {record['sweep']}: " + "; ".join(f"{size:,}: {of['tokens_per_second']:,.0f} tokens/s, {of['peak_bytes'] / 2**30:.1f} GiB"
                                                for size, of in record["points"])


LINES: dict[str, Callable[[Record], Iterator[str]]] = {
    "check_attention": attention_lines, "step_time": step_lines, "profile_step": profile_lines, "vs_transformers": torch_lines,
    "embed_rate": embed_lines, "finetune_vs_transformers": finetune_lines, "precision_curves": curve_lines, "loss_curves": curve_lines,
    "fp8_products": float8_lines, "scaling": scaling_lines, "startup": startup_lines,
}


def run_lines(metrics: Path) -> Iterator[str]:
    """Yield the line of a run of the command: its speeds, the first one too, and its scores."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if row["split"] == "train"]
    losses = [row["loss"] for row in rows if row["split"] == "validation" and "loss" in row]
    speed = f"{statistics.median(speeds):,.0f} real tokens/s (first {speeds[0]:,.0f}); " if speeds else ""
    yield f"{metrics.parent.name}: {speed}validation loss {' → '.join(f'{loss:.4f}' for loss in losses)}"


def summary(out: Path) -> list[str]:
    """Return the lines of the summary."""
    lines = []
    records = out / "results.jsonl"
    for line in records.read_text(encoding="utf-8").splitlines() if records.exists() else ():
        record = json.loads(line)
        if not lines:
            lines.append(f"{record['devices']} × {record['device']}, jax {record['versions']['jax']}")
        if record["benchmark"] in LINES:
            lines += ["", f"[{record['benchmark']}]"]
            try:
                lines += LINES[record["benchmark"]](record)
            except (KeyError, TypeError, ValueError) as error:  # the other tables are worth more than a traceback
                lines.append(f"this record has another form than its table: {error!r}")
    runs = sorted((out / "runs").glob("*/metrics.jsonl"))
    if runs:
        lines += ["", "[recipes]", *(line for metrics in runs for line in run_lines(metrics))]
    parts = out / "parts.tsv"
    lines += ["", "[parts]"]
    for line in parts.read_text(encoding="utf-8").splitlines() if parts.exists() else ():
        name, state, seconds = line.split("\t")
        lines.append(f"{name:<24}{state:<20}{seconds:>6} s")
    return lines


if __name__ == "__main__":
    print("\n".join(summary(Path(sys.argv[1]))))
