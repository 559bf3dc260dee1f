"""`builtin:pydocs`: a domain corpus that every machine has, the documentation inside its own Python.

Python's language reference (`pydoc_data.topics`) and the docstrings of the standard library and of the
installed scientific packages. Sources are parsed with `ast`, never imported. What is installed differs from
machine to machine, so do perplexities on it: compare runs of one machine.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources import builtin_labels
from jaxplm.data.sources.docstrings import documented, module_files, quoted_share, uncollected
from jaxplm.errors import UserError

# Part of the fingerprint: raise it when the same machine would give other texts.
_VERSION = 1
# In the order of reading; those that come with this package first, so that the byte budget cuts the others.
_PACKAGES = (
    "numpy", "jax", "flax", "optax", "orbax", "chex", "ml_collections", "absl", "scipy", "pandas", "pyarrow",
    "matplotlib", "sklearn", "networkx", "statsmodels", "xarray", "sympy",
)  # fmt: skip
# Distribution names that differ from the import name, for the versions in the fingerprint.
_DISTRIBUTIONS = {
    "orbax": "orbax-checkpoint", "ml_collections": "ml-collections", "absl": "absl-py",
    "sklearn": "scikit-learn",
}  # fmt: skip
_NAMES = ("pydocs", "pydocs-short", "pydocs-labels")
_SHORT_CHARS, _SHORT_TEXTS = 160, 200
_MIN_CHARS = 30
_VALIDATION_PERCENT = 6
# Parsing takes a second for 4 MB and is nearly all the time it takes. Files that are mostly code give little
# text for it, and a machine with every package must not wait a minute for its default corpus.
_MIN_TEXT_SHARE = 0.3
_MAX_PARSED_BYTES = 18_000_000


class BuiltinSource:
    """One split of a built-in corpus; `UserError` if there is none of that name."""

    def __init__(self, name: str, split: str) -> None:
        if name not in _NAMES:
            raise UserError(f"builtin:{name} does not exist as data; there are {', '.join('builtin:' + n for n in _NAMES)}")
        splits = builtin_labels.SPLITS if name == "pydocs-labels" else ("train", "validation")
        if split not in splits:
            raise UserError(f"builtin:{name} has the splits {', '.join(splits[:-1])} and {splits[-1]}, not {split}")
        self.name, self.split = name, split

    @property
    def fingerprint(self) -> str:
        content = builtin_labels.fingerprint() if self.name == "pydocs-labels" else _environment()
        return f"builtin:{self.name}:{self.split}:{_VERSION}:{content}"

    def texts(self) -> Iterator[str]:
        if self.name == "pydocs-labels":
            return (text for text, _ in builtin_labels.pydocs_labels(self.split))
        return pydocs(self.split) if self.name == "pydocs" else pydocs_short(self.split)

    def rows(self, text: str, label: str) -> Iterator[dict[str, str]]:
        """The texts as rows with a column of the name `text`, and `label` where the corpus has labels."""
        if self.name == "pydocs-labels":
            return ({text: one, label: name} for one, name in builtin_labels.pydocs_labels(self.split))
        return ({text: one} for one in self.texts())


def pydocs(split: str) -> Iterator[str]:
    """The texts of `"train"` or `"validation"`: whole modules go to either, and no text is in both.

    Sorted by module name, then by place in the module: the same on every run of one installation.
    """
    return iter(_pydocs()[split])


def pydocs_short(split: str) -> Iterator[str]:
    """A few short texts of `pydocs`, evenly spread: the size and shape of a small task's training set."""
    short = [text for text in pydocs(split) if len(text) <= _SHORT_CHARS]
    return iter(short[:: max(1, len(short) // _SHORT_TEXTS)][:_SHORT_TEXTS])


def in_validation(module: str) -> bool:
    """Whether a module's texts are held out: by its name alone, so that new packages move no old module."""
    return int.from_bytes(hashlib.sha256(module.encode()).digest()[:4], "big") % 100 < _VALIDATION_PERCENT


@functools.lru_cache(maxsize=1)
def _pydocs() -> dict[str, list[str]]:
    by_module = sorted(_documented_modules())
    splits: dict[str, list[str]] = {"train": [], "validation": []}
    seen: set[str] = set()
    # Validation first: where a text stands in modules of both splits, training loses it, so that the
    # validation set does not depend on what else is installed.
    for split in ("validation", "train"):
        for module, texts in by_module:
            if in_validation(module) == (split == "validation"):
                for text in texts:
                    key = " ".join(text.lower().split())
                    if len(key) >= _MIN_CHARS and key not in seen:
                        seen.add(key)
                        splits[split].append(text)
    return splits


def _documented_modules() -> Iterator[tuple[str, list[str]]]:
    budget = _MAX_PARSED_BYTES
    with uncollected():
        for prefix, root in _roots():
            for module, path in module_files(prefix, root):
                try:
                    source = path.read_bytes()
                except OSError:
                    continue
                if quoted_share(source) < _MIN_TEXT_SHARE:
                    continue
                budget -= len(source)
                if budget < 0:
                    return
                if texts := documented(source, is_topics=module == "pydoc_data.topics"):
                    yield module, texts


def _roots() -> Iterator[tuple[str, Path]]:
    yield "", Path(sysconfig.get_path("stdlib"))
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a top-level package without running it
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield package, Path(place)


def _environment() -> str:
    versions = [platform.python_version()]
    for package in _PACKAGES:
        try:
            versions.append(f"{package}={importlib.metadata.version(_DISTRIBUTIONS.get(package, package))}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return hashlib.sha256(" ".join(versions).encode()).hexdigest()
