"""Compare the loss curves of the same further pre-training in several precisions or by other settings, by the real command.

    python benchmarks/precision_curves.py --out=DIR [--dtypes=float32,bfloat16] [--against=compute.attention=plain]
        [--steps=300] [--limit=1] [--set=model.path=DIR --set=data.train=FILE ...] [--emulate]

All runs have the same rows, masks and dropout (`configs/dapt.py` with the fields of each --set). With --against, the first run
has no other field, and each --against is one more run with its fields ("a.b=1,c.d=2"); else there is one per type of --dtypes.
Each is compared with the first one: the script prints the largest relative difference of the training loss averaged over 20
steps, that of the mean over all steps, and the validation losses. DIR/precision.png shows the curves. A line of JSON is
appended to benchmarks/results.jsonl. Exit status: 1 if averaged curves differ by more than --limit percent, else 0.

For float8: --dtypes=bfloat16,float8 --limit=0.5, on a GPU that has it. --emulate runs float8 and bfloat16 anywhere, with the
rounding that a GPU has and without its speed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import curves
import numpy as np
import record

from jaxplm.config import Precision

ROOT = Path(__file__).parent.parent

# The command with a GPU's choice of types, whatever the device is.
EMULATED = """
import sys
from jaxplm.devices import compute
from jaxplm.nn import float8, layers
layers.float8_matmul = lambda x, kernel, emulated: float8.float8_matmul(x, kernel, True)
compute.float8_lack = lambda device: ""
compute._precision = lambda dtype: ("float32",) * 2 if dtype == "float32" else ("bfloat16",) * 2
from jaxplm.main import main
sys.exit(main(sys.argv, own_process=True))
"""


def run(options: argparse.Namespace, folder: str, changed: list[str]) -> list[dict[str, Any]]:
    """Run the command with fields changed, in the workdir DIR/`folder`; return the records of its metrics.jsonl."""
    workdir = Path(options.out) / folder
    settings = [f"train.steps={options.steps}", f"train.eval_every={options.steps}", "train.log_every=1", *options.set, *changed]
    program = ["-c", EMULATED] if options.emulate else ["-m", "jaxplm.main"]
    subprocess.run([sys.executable, *program, f"--config={ROOT / 'configs' / 'dapt.py'}", f"--workdir={workdir}",
                    *(f"--config.{setting}" for setting in settings)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--against", action="append", default=[], metavar="FIELD=VALUE,...")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=float, default=1.0, help="percent")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--emulate", action="store_true")
    options = parser.parse_args()
    dtypes = options.dtypes.split(",")
    changes = {"as it is": [], **{change: change.split(",") for change in options.against}} if options.against else {
        dtype: [f"compute.dtype={dtype}"] for dtype in dtypes}
    if set(dtypes) - set(get_args(Precision)) or not 1 < len(dtypes) == len(set(dtypes)):
        sys.exit(f"--dtypes={options.dtypes}: must be two or more of {', '.join(get_args(Precision))}")
    if options.steps < curves.WINDOW:
        sys.exit(f"--steps={options.steps}: must be {curves.WINDOW} or more, over which losses are averaged")
    records = {name: run(options, name if name in dtypes else f"run_{number}", changed)
               for number, (name, changed) in enumerate(changes.items())}
    raw = {dtype: np.array([one["loss"] for one in of_run if one["split"] == "train"]) for dtype, of_run in records.items()}
    validation = {dtype: [one["loss"] for one in of_run if one["split"] == "validation"] for dtype, of_run in records.items()}
    first = next(iter(changes))
    figures = curves.compare(raw, Path(options.out) / "precision.png")
    for dtype, losses in validation.items():
        print(f"{dtype:<10} validation loss {' → '.join(f'{loss:.4f}' for loss in losses)}, {losses[-1] / validation[first][-1] - 1:+.3%}")
    record.append("precision_curves", {"first": first, "emulated": options.emulate, "apart": figures, "validation": validation})
    if wrong := curves.beyond(figures, options.limit):
        sys.exit(f"{', '.join(wrong)}: the curve differs by more than {options.limit:g} % from that of {first}")


if __name__ == "__main__":
    main()
