"""Append a benchmark's figures to results.jsonl, with the command, the hardware and the versions."""

import importlib.metadata
import json
import os
import platform
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


def append(benchmark: str, figures: dict[str, Any]) -> None:
    """Append a line of JSON to results.jsonl beside this file: figures, command, hardware, versions of packages."""
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
    with (Path(__file__).parent / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
