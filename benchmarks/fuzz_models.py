"""Load many damaged model directories: count those taken, those refused in one line, faults and hangs; report the memory.

    python benchmarks/fuzz_models.py 5000 1

Each case damages one file of a small valid directory: config.json, the tokenizer's files, jaxplm.json, the index of shards, the
header or the values of the weights, or a missing file. A fault is anything but success or one line for the user; its directory
is kept. A hang takes more than ten seconds. Ctrl-C ends the run with the figures so far.
"""

import argparse
import logging
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from mutated_models import Mutator, load_case  # pyright: ignore[reportMissingImports]

LIMIT = 10  # seconds


class Hang(BaseException):
    """A case took longer than the limit."""


def _hang(number: int, frame: object) -> None:
    raise Hang


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", type=int)
    parser.add_argument("seed", type=int)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _hang)
    here = Path(tempfile.mkdtemp(prefix="fuzz-models-"))
    mutator, seen, kept, start = Mutator(options.seed), Counter[str](), Counter[str](), time.monotonic()
    slowest = 0.0
    for number in range(options.cases):
        directory = here / "model"
        directory.mkdir()
        case = mutator.write(directory)
        before = time.monotonic()
        signal.alarm(LIMIT)
        try:
            seen["refused" if load_case(directory, case, here / "export") else "taken"] += 1
        except BaseException as error:
            signal.alarm(0)
            if isinstance(error, KeyboardInterrupt):
                break
            seen["hangs" if isinstance(error, Hang) else "faults"] += 1
            at = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}"
            kept[name] += 1
            if kept[name] == 1:
                shutil.copytree(directory, here / f"case-{number}")
                print(f"{name}: {str(error)[:200]} ({case}, {here / f'case-{number}'})", flush=True)
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - before)
        shutil.rmtree(directory)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(seen.values()):,} of {options.cases:,} cases: {seen['taken']:,} taken,"
          f" {seen['refused']:,} refused in one line, {seen['faults']} faults, {seen['hangs']} hangs; the slowest took {slowest:.1f} s,"
          f" {time.monotonic() - start:.0f} s in all; largest memory {memory:,.0f} MiB")
    if not kept:
        shutil.rmtree(here)
    return bool(kept)


if __name__ == "__main__":
    raise SystemExit(main())
