"""`builtin:pydocs`: a domain corpus that every machine has, the documentation inside its own Python.

Python's language reference (`pydoc_data.topics`) and the docstrings of the standard library and of the
installed scientific packages. Sources are parsed with `ast`, never imported. What is installed differs from
machine to machine, so do perplexities on it: compare runs of one machine.
"""

import ast
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

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
_SKIPPED_DIRECTORIES = frozenset(
    ("test", "tests", "testing", "idle_test", "_test", "site-packages", "dist-packages", "__pycache__",
     "encodings", "turtledemo", "ensurepip", "lib2to3", "idlelib",
     "_vendored", "_vendor", "vendor", "externals", "extern")
)  # fmt: skip
_NAMES = ("pydocs", "pydocs-short")
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
        if split not in ("train", "validation"):
            raise UserError(f"builtin:{name} has the splits train and validation, not {split}")
        self.name, self.split = name, split

    @property
    def fingerprint(self) -> str:
        return f"builtin:{self.name}:{self.split}:{_VERSION}:{_environment()}"

    def texts(self) -> Iterator[str]:
        return pydocs(self.split) if self.name == "pydocs" else pydocs_short(self.split)


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
    # Millions of short-lived nodes with no cycles: collecting garbage in between takes half of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        budget = _MAX_PARSED_BYTES
        for prefix, root in _roots():
            for module, path in _module_files(prefix, root):
                try:
                    source = path.read_bytes()
                    if _quoted_share(source) < _MIN_TEXT_SHARE:
                        continue
                    budget -= len(source)
                    if budget < 0:
                        return
                    with warnings.catch_warnings(action="ignore"):  # old escapes in others' sources
                        tree = ast.parse(source)
                except (OSError, SyntaxError, ValueError, RecursionError):
                    continue  # broken on purpose (templates), or written for another Python
                found = _topics(tree) if module == "pydoc_data.topics" else _docstrings(tree.body, tree)
                texts = [inspect.cleandoc(text) for text in found if text.isascii() or _encodable(text)]
                if texts:
                    yield module, texts
    finally:
        if was_enabled:
            gc.enable()


def _quoted_share(source: bytes) -> float:
    """The share of a file inside triple quotes, roughly and fast."""
    pieces = source.replace(b"'''", b'"""').split(b'"""')
    return sum(map(len, pieces[1::2])) / max(len(source), 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates in examples
        return False
    return True


def _roots() -> Iterator[tuple[str, Path]]:
    yield "", Path(sysconfig.get_path("stdlib"))
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a top-level package without running it
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield package, Path(place)


def _module_files(prefix: str, root: Path) -> Iterator[tuple[str, Path]]:
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(
            d for d in subdirectories if d not in _SKIPPED_DIRECTORIES and d.isidentifier()
        )
        relative = Path(directory).relative_to(root).parts
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_") and not name.endswith("_test.py"):
                parts = (prefix, *relative, name[:-3])
                yield ".".join(part for part in parts if part and part != "__init__"), Path(directory, name)


def _docstrings(body: list[ast.stmt], owner: ast.AST) -> Iterator[str]:
    """The docstring of `owner`, then of the classes and functions in `body`, outside in, in source order."""
    if isinstance(owner, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
        text = _constant(body[0].value) if isinstance(body[0], ast.Expr) else None
        if text:
            yield text
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(node.body, node)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _docstrings(node.body, node)
            yield from _docstrings(getattr(node, "orelse", []), node)
            for handler in getattr(node, "handlers", []):
                yield from _docstrings(handler.body, node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            # numpy and scipy document what is written in C by add_newdoc("module", "name", """…""").
            name = getattr(node.value.func, "id", getattr(node.value.func, "attr", ""))
            if name in ("add_newdoc", "_add_newdoc", "add_docstring"):
                for argument in node.value.args:
                    parts = argument.elts if isinstance(argument, ast.Tuple) else [argument]
                    yield from filter(None, map(_constant, parts))


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from filter(None, map(_constant, node.values))


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _environment() -> str:
    versions = [platform.python_version()]
    for package in _PACKAGES:
        try:
            versions.append(f"{package}={importlib.metadata.version(_DISTRIBUTIONS.get(package, package))}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return hashlib.sha256(" ".join(versions).encode()).hexdigest()
