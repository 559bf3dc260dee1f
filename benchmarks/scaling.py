"""Measure how tokens per second and peak memory change with row length, batch size, vocabulary and depth.

    python benchmarks/scaling.py --out=DIR [--preset=base] [--tokens=4096] [--steps=5] \
        [--sweeps=length,rows,vocab,layers] [--case="dropout=0"]

Each sweep changes one size and keeps the others: rows of 128 tokens and `--tokens` tokens per batch. The sweep of
lengths keeps the tokens, so it has fewer, longer rows. Cases are measured as in step_time.py, each in a process of its
own. It prints a table per sweep, draws DIR/scaling.png and appends a line of JSON per sweep to
benchmarks/results.jsonl.
"""

import argparse
import dataclasses
from pathlib import Path

import record
from mlm_work import Case
from step_time import HEADER, line_of, measure

SWEEPS = {
    "length": (128, 256, 512, 1024, 2048, 4096),
    "rows": (2, 4, 8, 16, 32, 64),
    "vocab": (30_000, 50_000, 100_000, 250_000),
    "layers": (1, 2, 4, 8, 12, 24),
}
LABELS = {"length": "tokens per row", "rows": "rows of 128 tokens", "vocab": "entries of the vocabulary", "layers": "layers"}


def draw(out: Path, title: str, measured: dict[str, list[tuple[int, dict]]]) -> None:
    """Draw one column per sweep: tokens/s above, memory below; both axes start at zero."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator

    figure, axes = pyplot.subplots(2, len(measured), figsize=(3.4 * len(measured), 5.6), squeeze=False)
    for (sweep, points), (rate, memory) in zip(measured.items(), axes.T, strict=True):
        sizes = [size for size, _ in points]
        rate.plot(sizes, [figures["tokens_per_second"] for _, figures in points], "o-", color="C0")
        memory.plot(sizes, [figures["peak_bytes"] / 2**30 for _, figures in points], "o-", color="C1")
        for axis in (rate, memory):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(FixedLocator(sizes))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticklabels([f"{size // 1000}k" if size >= 10_000 else str(size) for size in sizes])
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        memory.set_xlabel(LABELS[sweep])
    axes[0, 0].set_ylabel("tokens per second")
    axes[1, 0].set_ylabel("peak memory, GiB")
    figure.suptitle(title)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "scaling.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sweeps", default=",".join(SWEEPS))
    parser.add_argument("--case", default="", help="fields of every case: see step_time.py")
    options = parser.parse_args()
    measured: dict[str, list[tuple[int, dict]]] = {}
    for sweep in options.sweeps.split(","):
        print(f"{LABELS[sweep]}\n{HEADER}")
        measured[sweep] = []
        for size in SWEEPS[sweep]:
            base = Case(preset=options.preset, length=128, rows=options.tokens // 128).varied(options.case)
            sizes = {sweep: size} | ({"rows": max(1, options.tokens // size)} if sweep == "length" else {})
            case = dataclasses.replace(base, **sizes)
            figures = measure(case, options.steps)
            print(line_of(f"{size:,}", figures), flush=True)
            if "error" not in figures:
                measured[sweep].append((size, figures))
        record.append("scaling", {"sweep": sweep, "preset": options.preset, "points": measured[sweep]})
    draw(Path(options.out), f"MLM step, {options.preset}", measured)


if __name__ == "__main__":
    main()
