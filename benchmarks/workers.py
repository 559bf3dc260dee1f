"""Run parts of a benchmark in processes of their own, which print their result as a line of JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# {name: (what its --worker is, environment variables of its process)}
Contestants = dict[str, tuple[str, dict[str, str]]]


def result_of(name: str, command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> Any:
    """Run a command and return the last line of its output as JSON; exit with what it printed if it fails.

    Args:
      name: what the message calls it.
      command: its arguments, the program first.
      environment: all of its environment variables.
      cwd: where it runs; None: here.
    """
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def selected(contestants: Contestants, only: str) -> Contestants:
    """Return the contestants whose names start with one of the comma-separated words of `only`; all if it is empty."""
    beginnings = tuple(word.strip() for word in only.split(","))
    return {name: how for name, how in contestants.items() if name.startswith(beginnings)}


def run_in_turn(contestants: Contestants, rounds: int, *arguments: str) -> Iterator[tuple[int, str, Any]]:
    """Run contestants one after the other; yield (round, name, result).

    So a slow minute of the machine meets all of them.

    Args:
      contestants: the ones to run. Each process is this script with its own arguments, --worker and `arguments`.
      rounds: how many times each runs; the first round is 1.
    """
    for turn in range(1, rounds + 1):
        for name, (worker, environment) in contestants.items():
            command = [sys.executable, *sys.argv, f"--worker={worker}", *arguments]
            yield turn, name, result_of(name, command, os.environ | environment)
