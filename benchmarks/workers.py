"""Run parts of a benchmark in processes of their own, which print their result as a line of JSON."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# {name: (what its --worker is, environment variables of its process)}
Contestants = dict[str, tuple[str, dict[str, str]]]
COMPILED = "torch.compile"  # in the names of the contestants that use it


def on_gpu() -> bool:
    """Return whether this machine lends a process an NVIDIA GPU, without opening it: that would take memory from the workers."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def compile_limit() -> float:
    """Return the default of the seconds that a process with torch.compile may take: on a GPU, it may not finish in minutes."""
    return 90.0 if on_gpu() else 1200.0


def run_within(command: list[str], environment: Mapping[str, str], *, cwd: Path | None = None,
               seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and return its status and what it printed. Whatever ends the wait ends all processes that it started.

    Raises:
      subprocess.TimeoutExpired: it was not done in `seconds`.
    """
    with subprocess.Popen(command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        try:
            printed, errors = process.communicate(timeout=seconds)
        except BaseException:  # a time limit, Ctrl-C, SIGTERM
            os.killpg(process.pid, signal.SIGKILL)  # torch.compile has processes of its own
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, printed, errors)


def result_of(name: str, command: list[str], environment: Mapping[str, str], cwd: Path | None = None,
              seconds: float | None = None) -> Any:
    """Run a command and return the last line of its output as JSON; exit with what it printed if it fails.

    Args:
      name: what the message calls it.
      command: its arguments, the program first.
      environment: all of its environment variables.
      cwd: where it runs; None: here.
      seconds: a time limit; where it ends the command, a line says so and None is returned.
    """
    try:
        done = run_within(command, environment, cwd=cwd, seconds=seconds)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done in {seconds:g} s", flush=True)
        return None
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def selected(contestants: Contestants, only: str) -> Contestants:
    """Return the contestants whose names start with one of the words of `only`; all if it is empty.

    Commas separate the words; a comma before a space is part of a word, as it is part of names.
    """
    beginnings = tuple(re.split(r",(?! )", only))
    return {name: how for name, how in contestants.items() if name.startswith(beginnings)}


def run_in_turn(contestants: Contestants, rounds: int, *arguments: str, compile_limit: float | None = None
                ) -> Iterator[tuple[int, str, Any]]:
    """Run contestants one after the other; yield (round, name, result).

    So a slow minute of the machine meets all of them.

    Args:
      contestants: the ones to run. Each process is this script with its own arguments, --worker and `arguments`.
      rounds: how many times each runs; the first round is 1.
      compile_limit: seconds of a process that uses torch.compile; one that needs more yields nothing and does not run again.
    """
    left = dict(contestants)
    for turn in range(1, rounds + 1):
        for name, (worker, environment) in list(left.items()):
            command = [sys.executable, *sys.argv, f"--worker={worker}", *arguments]
            limit = compile_limit if COMPILED in name else None
            result = result_of(name, command, os.environ | environment, seconds=limit)
            if result is None:
                del left[name]
            else:
                yield turn, name, result
