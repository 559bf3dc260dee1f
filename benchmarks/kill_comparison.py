"""Kill a comparison of ways at random moments: the same command ends with the table of an undisturbed run.

    python benchmarks/kill_comparison.py [--kills=10] [--seed=0] [--out=DIR]

A small comparison with built-in data is run once undisturbed. Then the same command is started in another workdir, and killed
by SIGKILL after 5 to 40 seconds, `kills` times: the command and its stages, the command alone, or one stage alone. Each time
the same command is started again. At the end it prints whether `comparison.json` is that of the undisturbed run, times and
energy left out, whether all predictions are equal to the byte, and how many stages ran again after they had ended. Exit
status: 1 for a difference or such a stage.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FIELDS = {
    "train.seeds": "(1,2)", "adapt.ways": "('random','base','dapt','dapt+tapt')", "adapt.learning_rates": "(3e-4,1e-3)",
    "adapt.few_rows": "(100,)", "adapt.parallel": "2", "adapt.dapt": "('train.steps=30','train.batch_size=16','checkpoint.every=10')",
    "adapt.tapt": "('train.steps=20','train.batch_size=16','checkpoint.every=10')",
    "adapt.finetune": "('train.steps=30','checkpoint.every=10')", "adapt.few": "('train.steps=20',)",
}
MEASURED = ("seconds", "joules", "command", "commands", "hardware")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where both workdirs are kept; default: a directory that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = options.out or Path(folder)
        began = time.monotonic()
        if status := start(here / "undisturbed").wait():
            sys.exit(f"the undisturbed run ended with status {status}")
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        sys.exit(disturbed(here, options.kills, random.Random(options.seed)))


def disturbed(here: Path, kills: int, chance: random.Random) -> int:
    """Run the comparison with kills; print the outcome, and return 1 where it is another one than that of the undisturbed run."""
    workdir = here / "killed"
    ended: dict[str, tuple[int, int]] = {}
    again: set[str] = set()
    done = 0
    while True:
        process = start(workdir)
        delay, victim = chance.uniform(5, 40), chance.choice(("all", "command", "stage"))
        if done < kills:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                stages = stages_of(process.pid)
                if victim != "stage":
                    process.kill()
                for stage in stages if victim == "all" else stages[:1] if victim == "stage" else []:
                    os.kill(stage, signal.SIGKILL)
                done += 1
                print(f"kill {done}: {victim} after {delay:.0f} s, {len(ended)} stages had ended", flush=True)
        process.wait()
        for path in workdir.glob("stages/**/stage.json"):
            name, file = str(path.parent.relative_to(workdir / "stages")), path.stat()
            mark = (file.st_ino, file.st_mtime_ns)
            if ended.setdefault(name, mark) != mark:
                again.add(name)
        if process.returncode == 0 and done >= kills and not failed(workdir):
            break
    same = scores(here / "undisturbed") == scores(workdir)
    files = [path.relative_to(workdir) for path in sorted(workdir.glob("stages/**/predictions.jsonl"))]
    equal = [(here / "undisturbed" / path).read_bytes() == (workdir / path).read_bytes() for path in files]
    print(f"{kills} kills, {len(ended)} stages: comparison.json {'is the same' if same else 'DIFFERS'}; {sum(equal)} of {len(equal)} files"
          f" of predictions are equal; {len(again)} stages ran again after they had ended {sorted(again) or ''}")
    return int(not same or not all(equal) or bool(again))


def start(workdir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jaxplm.main", "--config=adapt", f"--workdir={workdir}",
               *(f"--config.{name}={value}" for name, value in FIELDS.items())]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def stages_of(parent: int) -> list[int]:
    """Return the processes that a command has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def failed(workdir: Path) -> bool:
    """Return whether a stage of the comparison has not ended, since it was killed."""
    content = json.loads((workdir / "comparison.json").read_text("utf-8"))["comparison"]
    return any("failed" in note for note in content["notes"]) or any(way["failure"] for way in content["ways"])


def scores(workdir: Path) -> Any:
    """Return comparison.json without what differs between equal runs."""
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(one) for name, one in value.items() if name not in MEASURED}
        return [without(one) for one in value] if isinstance(value, list) else value

    return without(json.loads((workdir / "comparison.json").read_text("utf-8")))


if __name__ == "__main__":
    main()
