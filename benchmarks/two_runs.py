"""Start two runs in one workdir at the same time: one ends as if it were alone, the other is refused in one line.

    python benchmarks/two_runs.py [--times=20] [--recipes=dapt,finetune,embed]

The second is started after a delay that differs from time to time, so that it meets the first at its start, in training and at its
end. A second run that comes after the end of the first finds a finished run. That is counted on its own and tried once more.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from small_runs import RECIPES, command, export_of, write_data

LIMIT = 10.0  # seconds in which the second must have ended
AFTER = "the second came after the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    arguments = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_data(here)
        for recipe in arguments.recipes.split(","):
            began = time.monotonic()
            subprocess.run(command(recipe, here, here / recipe / "alone"), check=True, capture_output=True)
            length = time.monotonic() - began
            alone = export_of(here / recipe / "alone")
            seen: Counter[str] = Counter()
            slowest = 0.0
            for number in range(2 * arguments.times):
                if seen.total() - seen[AFTER] == arguments.times:
                    break
                workdir = here / recipe / str(number)
                # Half of the second runs start with the first.
                delay = 0.0 if number % 2 else random.Random(number).uniform(0, 0.8 * length)
                outcome, seconds = _pair(recipe, here, workdir, delay, alone)
                slowest = max(slowest, seconds)
                seen[outcome] += 1
                if outcome.startswith("FAULT"):
                    faults += 1
                    print(f"{recipe} {number}, second after {delay:.2f} s: {outcome}")
            found = ", ".join(f"{times} × {outcome}" for outcome, times in seen.items())
            print(f"{recipe}: {found}; the slowest refusal took {slowest:.1f} s", flush=True)
    sys.exit(bool(faults))


def _pair(recipe: str, here: Path, workdir: Path, delay: float, alone: dict[str, bytes]) -> tuple[str, float]:
    """Return what the two runs did, and the seconds that the refused one took."""
    started: list[float] = []
    runs: list[subprocess.Popen[str]] = []
    for wait in (0.0, delay):
        time.sleep(wait)
        started.append(time.monotonic())
        runs.append(subprocess.Popen(command(recipe, here, workdir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    ended: dict[int, float] = {}
    while len(ended) < 2:
        for index, run in enumerate(runs):
            if index not in ended and run.poll() is not None:
                ended[index] = time.monotonic() - started[index]
        time.sleep(0.02)
    errors = [run.communicate()[1] for run in runs]
    statuses = [run.returncode for run in runs]
    if export_of(workdir) != alone:
        return f"FAULT: another export ({statuses}, {errors})", 0.0
    if statuses == [0, 0]:
        return AFTER, 0.0
    if sorted(statuses) != [0, 2]:
        return f"FAULT: exit statuses {statuses}: {errors}", 0.0
    refused = statuses.index(2)
    if errors[1 - refused]:
        return f"FAULT: stderr of the first: {errors[1 - refused]}", 0.0
    if errors[refused].count("\n") != 1 or str(workdir) not in errors[refused]:
        return f"FAULT: not one line: {errors[refused]}", 0.0
    if ended[refused] > LIMIT:
        return f"FAULT: refused after {ended[refused]:.1f} s", ended[refused]
    return "one alone, one refused in one line", ended[refused]


if __name__ == "__main__":
    main()
