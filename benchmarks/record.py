"""Append a benchmark's figures to results.jsonl, with the command, the hardware and the versions.

The file is beside this one, or at $BENCHMARK_RECORDS. A benchmark that is stopped at a time limit (SIGTERM) still appends
what it has: see `stopped_by_exit`.
"""

import importlib.metadata
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "tokenizers", "torch")


def _without_directories(argument: str) -> str:
    """Return an argument without the directories of its value: '--model=/somewhere/minilm' → '--model=minilm'."""
    name, equals, value = argument.rpartition("=")
    return name + equals + Path(value).name


def processor() -> str:
    """Return the CPU's name, or the kind of machine where the system does not name it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def stopped_by_exit() -> None:
    """Make SIGTERM raise SystemExit, so that `finally` appends what was measured before a time limit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped before its end"))


def file() -> Path:
    """Return the file of the records."""
    return Path(os.environ.get("BENCHMARK_RECORDS") or Path(__file__).parent / "results.jsonl")


def append(benchmark: str, figures: dict[str, Any]) -> None:
    """Append a line of JSON to the file of records: figures, command, hardware, versions of packages."""
    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # PyTorch is not part of every installation
    record = {"benchmark": benchmark, "command": " ".join(map(_without_directories, sys.argv)), **figures,
              "device": jax.devices()[0].device_kind, "devices": jax.device_count(), "processor": processor(), "cpus": os.cpu_count(),
              "python": platform.python_version(), "versions": versions}
    with file().open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, ensure_ascii=False) + "\n")
