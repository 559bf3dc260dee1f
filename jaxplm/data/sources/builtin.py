"""The corpora that every installation has (`builtin:<name>`), as sources.

`pydocs` is a domain corpus: the documentation inside this machine's own Python. It takes Python's language reference
(`pydoc_data.topics`) and the docstrings of the standard library and of the installed scientific packages. Sources are
parsed with `ast`, never imported. What is installed differs between machines, and so do perplexities on it: compare
runs of one machine only.
"""

import functools
import hashlib
import importlib.metadata
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources import builtin_labels
from jaxplm.data.sources.docstrings import (
    collector_paused,
    docstrings,
    module_files,
    package_directories,
    read_documentation,
)
from jaxplm.errors import UserError

# Part of the fingerprint: raise it when the same machine would give other texts.
_VERSION = 1
# In the order of reading. Packages that come with this one stand first, so that the byte budget cuts the others.
_PACKAGES = (
    *("numpy", "jax", "flax", "optax", "orbax", "chex", "ml_collections", "absl", "scipy", "pandas", "pyarrow"),
    *("matplotlib", "sklearn", "networkx", "statsmodels", "xarray", "sympy"),
)
# Names of distributions that differ from the name to import, for the versions in the fingerprint.
_DISTRIBUTIONS = {
    "orbax": "orbax-checkpoint",
    "ml_collections": "ml-collections",
    "absl": "absl-py",
    "sklearn": "scikit-learn",
}
_NAMES = ("pydocs", "pydocs-short", "pydocs-labels", "pydocs-packages")
_SPLITS = {"pydocs-labels": builtin_labels.SPLITS, "pydocs-packages": ("train",)}
_MOST_SPLITS = ("train", "validation")  # of the others
_SHORT_CHARS, _SHORT_TEXTS = 160, 200
_MIN_CHARS = 30
_VALIDATION_PERCENT = 6
# Parsing takes a second per 4 MB and is nearly all of the time. Files that are mostly code give little text for it, and
# a machine with every package must not wait a minute for its default corpus.
_MIN_TEXT_SHARE = 0.3
_MAX_PARSED_BYTES = 18_000_000


class BuiltinSource:
    """One split of a built-in corpus.

    Args:
      name: of the corpus; `pydocs-labels/test` is that split alone, whichever one is asked for.

    Raises:
      UserError: there is no corpus or no split of that name.
    """

    def __init__(self, name: str, split: str) -> None:
        corpus, _, own = name.partition("/")
        if corpus not in _NAMES:
            raise UserError(
                f"builtin:{name} does not exist as data; there are {', '.join('builtin:' + n for n in _NAMES)}"
            )
        splits = _SPLITS.get(corpus, _MOST_SPLITS)
        split = own or split
        if split not in splits or name.endswith("/"):
            there_are = f"the splits {', '.join(splits[:-1])} and {splits[-1]}" if splits[1:] else f"the split {splits[0]}"
            raise UserError(f"builtin:{corpus} has {there_are}, not {split if own or '/' not in name else repr('')}")
        self.name, self.split = corpus, split

    @property
    def fingerprint(self) -> str:
        content = builtin_labels.fingerprint() if self.name == "pydocs-labels" else environment()
        return f"builtin:{self.name}:{self.split}:{_VERSION}:{content}"

    def rows(self, text: str, label: str) -> Iterator[dict[str, str]]:
        """Yield the texts as rows with the column `text`, and with the column `label` where the corpus has labels."""
        if self.name == "pydocs-labels":
            return ({text: content, label: package} for content, package in builtin_labels.pydocs_labels(self.split))
        if self.name == "pydocs-packages":
            return ({text: content} for content in builtin_labels.pydocs_packages())
        return ({text: content} for content in (pydocs if self.name == "pydocs" else pydocs_short)(self.split))


def brings(spec: str, split: str) -> bool:
    """Return whether `spec` is one built-in corpus that has this split besides that for training."""
    name = spec.removeprefix("builtin:")
    return spec.startswith("builtin:") and not set(",/") & set(name) and split in _SPLITS.get(name, _MOST_SPLITS)


def pydocs(split: str) -> Iterator[str]:
    """Yield the texts of `"train"` or `"validation"`. Whole modules belong to one of them, and no text is in both.

    They are sorted by module name, then by place in the module: the same on every run of one installation.
    """
    return iter(_pydocs()[split])


def pydocs_short(split: str) -> Iterator[str]:
    """Yield a few short texts of `pydocs`, evenly spread: of the size and form of a small task's training set."""
    short = [text for text in pydocs(split) if len(text) <= _SHORT_CHARS]
    return iter(short[:: max(1, len(short) // _SHORT_TEXTS)][:_SHORT_TEXTS])


def in_validation(module: str) -> bool:
    """Return whether a module's texts are held out: by its name alone, so that new packages move no old module."""
    return int.from_bytes(hashlib.sha256(module.encode()).digest()[:4], "big") % 100 < _VALIDATION_PERCENT


@functools.lru_cache(maxsize=1)
def _pydocs() -> dict[str, list[str]]:
    by_module = sorted(_documented_modules())
    splits: dict[str, list[str]] = {"train": [], "validation": []}
    seen: set[str] = set()
    # Validation comes first: a text that stands in modules of both splits is taken from training, so that the
    # validation set does not depend on what else is installed.
    for split in ("validation", "train"):
        for module, texts in by_module:
            if in_validation(module) != (split == "validation"):
                continue
            for text in texts:
                key = " ".join(text.lower().split())
                if len(key) >= _MIN_CHARS and key not in seen:
                    seen.add(key)
                    splits[split].append(text)
    return splits


def _documented_modules() -> Iterator[tuple[str, list[str]]]:
    """Yield (module, its docstrings) of the standard library and the packages, up to the budget of bytes to parse."""
    budget = _MAX_PARSED_BYTES
    with collector_paused():
        for prefix, root in _roots():
            for module, path in module_files(prefix, root):
                source = read_documentation(path, _MIN_TEXT_SHARE)
                if source is None:
                    continue
                budget -= len(source)
                if budget < 0:
                    return
                if texts := docstrings(source, is_topics=module == "pydoc_data.topics"):
                    yield module, texts


def _roots() -> Iterator[tuple[str, Path]]:
    yield "", Path(sysconfig.get_path("stdlib"))
    for package in _PACKAGES:
        for directory in package_directories(package):
            yield package, directory


def environment() -> str:
    """Return a hash of the versions of Python and of the packages."""
    versions = [platform.python_version()]
    for package in _PACKAGES:
        try:
            versions.append(f"{package}={importlib.metadata.version(_DISTRIBUTIONS.get(package, package))}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return hashlib.sha256(" ".join(versions).encode()).hexdigest()
