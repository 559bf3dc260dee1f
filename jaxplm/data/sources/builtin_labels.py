"""`builtin:pydocs-labels`: a classification task that every installation has. Which package does a docstring come from?

The twelve packages are Python's own or come with this package. A row is the beginning of a docstring, without the lines
of its examples (`>>>`), which import the package; docstrings that name their package are left out. Whole modules belong
to training, validation or test by a hash of their name, and no text stands twice, so nothing leaks. What is installed
differs between machines, and so do the scores: compare runs of one machine only.

`builtin:pydocs-packages` is unlabelled text of the same domain: the whole docstrings of the packages' modules, without the
modules that validation and test rows may come from, and without the texts of such rows.
"""

import functools
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources.docstrings import (
    collector_paused,
    docstrings,
    module_files,
    package_directories,
    read_documentation,
)

PACKAGES = (
    *("asyncio", "datasets", "email", "flax", "huggingface_hub", "jax"),
    *("matplotlib", "numpy", "optax", "orbax", "pandas", "scipy"),
)
SPLITS = ("train", "validation", "test")
# Rows per package and per module in each split, at most: a few large modules would be a task of their own.
_ROWS = {"train": 280, "validation": 40, "test": 60}
_MODULE_ROWS = {"train": 40, "validation": 20, "test": 20}
_VALIDATION_PERCENT, _TEST_PERCENT = 12, 15
_MIN_CHARS, _MAX_CHARS = 40, 400
_MAX_CORPUS_BYTES = 12_000_000  # sources to parse for pydocs-packages
# Files that are mostly code take long to parse and give little.
_MIN_TEXT_SHARE = 0.08


def pydocs_labels(split: str) -> Iterator[tuple[str, str]]:
    """Yield (text, package) of a split.

    The order mixes the packages and is the same on every run of an installation.
    """
    return iter(_rows()[split])


def pydocs_packages() -> Iterator[str]:
    """Yield the texts of `builtin:pydocs-packages`, package by package; the same on every run of an installation."""
    held = {_key(text) for split in ("validation", "test") for text, _ in _rows()[split]}
    seen: set[str] = set()
    budget = _MAX_CORPUS_BYTES
    with collector_paused():
        for module, path in sorted((item for package in PACKAGES for item in _modules(package)), key=lambda item: _hash(item[0])):
            if split_of(module) != "train" or (source := read_documentation(path, _MIN_TEXT_SHARE)) is None:
                continue
            budget -= len(source)
            if budget < 0:
                return
            for text in docstrings(source):
                key = _key(text)
                if len(key) >= _MIN_CHARS and key not in seen and _key(_beginning(text)) not in held:
                    seen.add(key)
                    yield text


@functools.lru_cache(maxsize=1)
def fingerprint() -> str:
    """Return a hash of all rows."""
    return hashlib.sha256(repr(_rows()).encode()).hexdigest()


def split_of(module: str) -> str:
    """Return the split of a module's texts: by its name alone, so that new modules move no old one."""
    percent = _hash(f"split {module}") % 100
    if percent < _VALIDATION_PERCENT:
        return "validation"
    return "test" if percent < _VALIDATION_PERCENT + _TEST_PERCENT else "train"


@functools.lru_cache(maxsize=1)
def _rows() -> dict[str, list[tuple[str, str]]]:
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    with collector_paused():
        for package in PACKAGES:
            for split, texts in _package_texts(package, seen).items():
                splits[split] += [(text, package) for text in texts]
    return {split: sorted(rows, key=lambda row: _hash(row[0])) for split, rows in splits.items()}


def _package_texts(package: str, seen: set[str]) -> dict[str, list[str]]:
    """Return the texts of a package by split.

    Modules are read in a random order, and no more of them than are needed.
    """
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for module, path in sorted(_modules(package), key=lambda item: _hash(item[0])):
        split = split_of(module)
        room = min(_ROWS[split] - len(texts[split]), _MODULE_ROWS[split])
        if not room:
            if all(len(texts[name]) >= _ROWS[name] for name in SPLITS):
                break
            continue
        source = read_documentation(path, _MIN_TEXT_SHARE)
        if source is None:
            continue
        for text in map(_beginning, docstrings(source)):
            key = _key(text)
            if room and len(key) >= _MIN_CHARS and package not in key and key not in seen:
                seen.add(key)
                texts[split].append(text)
                room -= 1
    return texts


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    standard = Path(sysconfig.get_path("stdlib"), package)
    for directory in [standard] if standard.is_dir() else package_directories(package):
        yield from module_files(package, directory)


def _beginning(text: str) -> str:
    """Return a docstring without its examples, up to the end of a word before `_MAX_CHARS`."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith((">>>", "... "))]
    text = "\n".join(lines).strip()
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS + 1].rsplit(None, 1)[0]
    return text


def _key(text: str) -> str:
    """Return what copies of a text have in common."""
    return " ".join(text.lower().split())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
