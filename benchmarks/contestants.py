"""Run the contestants of a comparison in turn, each in a process of its own, so that a slow minute of the machine meets all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

# {name: (what its --worker is, environment variables of its process)}
Contestants = dict[str, tuple[str, dict[str, str]]]


def selected(contestants: Contestants, only: str) -> Contestants:
    """Return those whose name starts with one of the comma-separated words of `only`; all if it is empty."""
    beginnings = tuple(word.strip() for word in only.split(","))
    return {name: how for name, how in contestants.items() if name.startswith(beginnings)}


def run_in_turn(contestants: Contestants, rounds: int, *arguments: str) -> Iterator[tuple[int, str, Any]]:
    """Yield (round from 1, name, the last line of what its process printed, as JSON); exit if a process fails.

    Args:
      contestants: the ones to run. Each process is this script with its own arguments, --worker and `arguments`.
      rounds: how many times each runs.
    """
    for turn in range(1, rounds + 1):
        for name, (worker, environment) in contestants.items():
            command = [sys.executable, *sys.argv, f"--worker={worker}", *arguments]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            yield turn, name, json.loads(done.stdout.strip().splitlines()[-1])
