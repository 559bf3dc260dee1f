"""Compare the loss curves of the same further pre-training in float32 and in bfloat16, by the real command.

    python benchmarks/precision_curves.py --out=DIR [--steps=300] [--set=model.path=DIR --set=data.train=FILE ...]

Both runs have the same rows, masks and dropout (`configs/dapt.py` with the fields of each --set). It prints the largest
relative difference of the training loss averaged over 20 steps, and the validation losses. DIR/precision.png shows both
curves. A line of JSON is appended to benchmarks/results.jsonl. Exit status: 1 if the averaged curves differ by more
than 1 %, else 0.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record

ROOT = Path(__file__).parent.parent
WINDOW = 20  # steps


def run(options: argparse.Namespace, dtype: str) -> list[dict[str, Any]]:
    """Run the command in one precision; return the records of its metrics.jsonl."""
    workdir = Path(options.out) / dtype
    settings = [f"train.steps={options.steps}", f"train.eval_every={options.steps}", "train.log_every=1", f"compute.dtype={dtype}",
                *options.set]
    subprocess.run([sys.executable, "-m", "jaxplm.main", f"--config={ROOT / 'configs' / 'dapt.py'}", f"--workdir={workdir}",
                    *(f"--config.{setting}" for setting in settings)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    records = {dtype: run(options, dtype) for dtype in ("float32", "bfloat16")}
    raw = {dtype: np.array([one["loss"] for one in of_run if one["split"] == "train"]) for dtype, of_run in records.items()}
    curves = {dtype: np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid") for dtype, losses in raw.items()}
    validation = {dtype: [one["loss"] for one in of_run if one["split"] == "validation"] for dtype, of_run in records.items()}
    apart = np.abs(curves["bfloat16"] / curves["float32"] - 1)
    print(f"{len(raw['float32'])} steps; training loss averaged over {WINDOW} steps differs by at most {apart.max():.3%}, "
          f"by {apart.mean():.3%} on average")
    for dtype, losses in validation.items():
        print(f"{dtype:<10} validation loss {' → '.join(f'{loss:.4f}' for loss in losses)}")

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True, height_ratios=(3, 1))
    steps = np.arange(WINDOW, WINDOW + len(apart))
    for (dtype, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        above.plot(steps, curve, style, label=dtype)
    above.set_ylabel(f"training loss, mean of {WINDOW} steps")
    above.legend()
    below.plot(steps, 100 * (curves["bfloat16"] / curves["float32"] - 1))
    below.axhline(0, color="black", linewidth=0.6)
    below.set_ylabel("difference, %")
    below.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(Path(options.out) / "precision.png", dpi=120)
    record.append("precision_curves", {"apart_max": float(apart.max()), "apart_mean": float(apart.mean()), "validation": validation})
    if apart.max() > 0.01:
        sys.exit("the curves differ by more than 1 %")


if __name__ == "__main__":
    main()
