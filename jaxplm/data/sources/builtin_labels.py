"""`builtin:pydocs-labels`: a task that every machine has. Which package does a docstring come from?

Twelve packages that an installation of this one always has, or that are Python's own. A row is the beginning of a
docstring, without the lines of its examples (`>>>`), which import the package; docstrings that name their package are
left out. Whole modules go to training, validation or test by a hash of their name, and no text stands twice, so
nothing leaks. What is installed differs from machine to machine, so do the scores: compare runs of one machine.
"""

import functools
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources.docstrings import documented, module_files, quoted_share, uncollected

PACKAGES = (
    "asyncio", "datasets", "email", "flax", "huggingface_hub", "jax", "matplotlib", "numpy", "optax", "orbax", "pandas",
    "scipy",
)  # fmt: skip
SPLITS = ("train", "validation", "test")
# Rows of a package in each split, at most, and of one of its modules: a few large modules would be a task of their own.
_ROWS = {"train": 280, "validation": 40, "test": 60}
_MODULE_ROWS = {"train": 40, "validation": 20, "test": 20}
_VALIDATION_PERCENT, _TEST_PERCENT = 12, 15
_MIN_CHARS, _MAX_CHARS = 40, 400
# Files that are mostly code take long to parse and give little.
_MIN_TEXT_SHARE = 0.08


def pydocs_labels(split: str) -> Iterator[tuple[str, str]]:
    """(text, package) of a split, in an order that mixes the packages and is the same on every run of an installation."""
    return iter(_rows()[split])


@functools.lru_cache(maxsize=1)
def fingerprint() -> str:
    """Hash of all rows."""
    return hashlib.sha256(repr(_rows()).encode()).hexdigest()


def split_of(module: str) -> str:
    """The split of a module's texts: by its name alone, so that new modules move no old one."""
    place = _hash(f"split {module}") % 100
    return "validation" if place < _VALIDATION_PERCENT else "test" if place < _VALIDATION_PERCENT + _TEST_PERCENT else "train"


@functools.lru_cache(maxsize=1)
def _rows() -> dict[str, list[tuple[str, str]]]:
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    with uncollected():
        for package in PACKAGES:
            for split, rows in _of_package(package, seen).items():
                splits[split] += [(text, package) for text in rows]
    return {split: sorted(rows, key=lambda row: _hash(row[0])) for split, rows in splits.items()}


def _of_package(package: str, seen: set[str]) -> dict[str, list[str]]:
    """The texts of a package by split. Modules are read in a random order, and no more of them than are needed."""
    rows: dict[str, list[str]] = {split: [] for split in SPLITS}
    for module, path in sorted(_modules(package), key=lambda found: _hash(found[0])):
        split = split_of(module)
        room = min(_ROWS[split] - len(rows[split]), _MODULE_ROWS[split])
        if not room:
            if all(len(rows[name]) >= _ROWS[name] for name in SPLITS):
                break
            continue
        try:
            source = path.read_bytes()
        except OSError:
            continue
        if quoted_share(source) < _MIN_TEXT_SHARE:
            continue
        for text in map(_beginning, documented(source)):
            key = " ".join(text.lower().split())
            if room and len(key) >= _MIN_CHARS and package not in key and key not in seen:
                seen.add(key)
                rows[split].append(text)
                room -= 1
    return rows


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    standard = Path(sysconfig.get_path("stdlib"), package)
    if standard.is_dir():
        yield from module_files(package, standard)
        return
    spec = importlib.util.find_spec(package)  # finds a top-level package without running it
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield from module_files(package, Path(place))


def _beginning(text: str) -> str:
    """A docstring without its examples, up to a word's end before `_MAX_CHARS`."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith((">>>", "... "))]
    text = "\n".join(lines).strip()
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS + 1].rsplit(None, 1)[0]
    return text


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
