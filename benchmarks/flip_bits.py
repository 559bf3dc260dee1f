"""Flip one bit at a random place of a cached or saved file, run the same command again, and compare its export.

    python benchmarks/flip_bits.py [--times=100] [--recipes=dapt,finetune,feature_extraction,embed] [--seed=0]

Each time a run that was stopped, or has ended, is copied with its cache, and one bit of one of its files is flipped; files are drawn
by turns and places at random. The run must end with the export of an undisturbed one, or with status 2 and one line that names
the file or its directory. Compiled programs are JAX's files and are left out, as are files that no run reads.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from small_runs import command, export_of, write_data

_LIMIT = 300.0  # seconds for one run; a quiet machine needs some ten
_NOT_READ = ("report.md", "plots", "tensorboard", "README.md", ".lock", "predictions.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--recipes", default="dapt,finetune,feature_extraction,embed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipes = arguments.recipes.split(",")
    draw = random.Random(arguments.seed)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_data(here)
        compiled = str(here / "compiled")
        stages = {recipe: _stages(recipe, here, compiled) for recipe in recipes}
        whole = {recipe: export_of(stages[recipe][-1] / "run") for recipe in recipes}
        for number in range(arguments.times):
            recipe = recipes[number % len(recipes)]
            stage = stages[recipe][number // len(recipes) % len(stages[recipe])]
            outcome = _one(recipe, here, stage, compiled, whole[recipe], draw)
            seen[outcome.split(":")[0]] += 1
            print(f"{number}: {recipe}, {stage.name}: {outcome}", flush=True)
    print(", ".join(f"{times} × {outcome}" for outcome, times in seen.items()))
    sys.exit(any(outcome.startswith("FAULT") for outcome in seen))


def _start(recipe: str, here: Path, compiled: str) -> subprocess.Popen[str]:
    """Start the command in here/now/run with the cache here/now/cache."""
    environment = os.environ | {"JAXPLM_CACHE": str(here / "now" / "cache"), "JAX_COMPILATION_CACHE_DIR": compiled}
    return subprocess.Popen(command(recipe, here, here / "now" / "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment)


def _stages(recipe: str, here: Path, compiled: str) -> list[Path]:
    """Return directories with a run and its cache: one killed in its middle, if it has one, and one that has ended."""
    now, found = here / "now", []
    for name, sign in (("stopped", "4/" if recipe == "dapt" else "is complete" if recipe == "embed" else "step 1"), ("ended", "")):
        run = _start(recipe, here, compiled)
        assert run.stdout is not None
        for line in run.stdout:
            if sign and sign in line:
                time.sleep(0.05)
                run.send_signal(signal.SIGKILL)
                break
        error = run.communicate()[1]
        if not sign and run.returncode:
            raise SystemExit(f"{recipe} fails by itself: {error}")
        stage = here / f"{recipe}-{name}"
        shutil.copytree(now, stage, symlinks=True)
        found.append(stage)
    shutil.rmtree(now)
    return found


def _one(recipe: str, here: Path, stage: Path, compiled: str, whole: dict[str, bytes], draw: random.Random) -> str:
    """Flip a bit in a copy of the stage, run the command and return what happened."""
    now = here / "now"
    shutil.rmtree(now, ignore_errors=True)
    shutil.copytree(stage, now, symlinks=True)
    files = [file for file in sorted(now.rglob("*"))
             if file.is_file() and file.stat().st_size and not set(file.relative_to(now).parts) & set(_NOT_READ)]
    file = draw.choice(files)
    content = bytearray(file.read_bytes())
    place, bit = draw.randrange(len(content)), draw.randrange(8)
    content[place] ^= 1 << bit
    file.write_bytes(content)
    where = f"{file.relative_to(now)}, byte {place}, bit {bit}"
    run = _start(recipe, here, compiled)
    try:
        out, error = run.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        run.kill()
        run.communicate()
        return f"FAULT: no end: {where}"
    named = any(str(part) in out + error for part in (file.name, file.parent))
    if run.returncode == 0:
        if export_of(now / "run") != whole:
            ours = export_of(now / "run")
            differ = [name for name in ours.keys() | whole.keys() if ours.get(name) != whole.get(name)]
            return f"FAULT: another export: {where}: {', '.join(sorted(differ))}"
        return f"the same export, {'damage named' if named and re.search('damaged|not what was written', out) else 'in silence'}: {where}"
    if run.returncode == 2 and error.count("\n") == 1 and (named or str(now / "run") in error):
        return f"one line: {where}: {error.strip()[:200]}"
    return f"FAULT: status {run.returncode}: {where}: {error[-300:]}"


if __name__ == "__main__":
    main()
