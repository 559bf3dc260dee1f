"""Find the modules of a package and the docstrings in their sources, which are parsed and never run."""

import ast
import contextlib
import gc
import importlib.util
import inspect
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

# Tests, code of others, and modules whose texts are data.
_SKIPPED_DIRECTORIES = frozenset((
    *("test", "tests", "testing", "idle_test", "_test", "site-packages", "dist-packages", "__pycache__"),
    *("encodings", "turtledemo", "ensurepip", "lib2to3", "idlelib"),
    *("_vendored", "_vendor", "vendor", "externals", "extern"),
))
# numpy and scipy document what is written in C by add_newdoc("module", "name", """…""").
_DOCUMENTING_CALLS = ("add_newdoc", "_add_newdoc", "add_docstring")


def package_directories(package: str) -> list[Path]:
    """Return the directories of an installed package; none if it is not installed. It is found without being run."""
    spec = importlib.util.find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def module_files(prefix: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (module, file) of every module under `root`, sorted by place; tests and vendored code are left out."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(
            name for name in subdirectories if name not in _SKIPPED_DIRECTORIES and name.isidentifier()
        )
        relative = Path(directory).relative_to(root).parts
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_") and not name.endswith("_test.py"):
                parts = (prefix, *relative, name[:-3])
                yield ".".join(part for part in parts if part and part != "__init__"), Path(directory, name)


def read_documentation(path: Path, min_share: float) -> bytes | None:
    """Return the source of a file of which at least `min_share` stands inside triple quotes, roughly and fast.

    None for other files, and for those that cannot be read.
    """
    try:
        source = path.read_bytes()
    except OSError:
        return None
    pieces = source.replace(b"'''", b'"""').split(b'"""')
    share = sum(map(len, pieces[1::2])) / max(len(source), 1)
    return source if share >= min_share else None


def docstrings(source: bytes, *, is_topics: bool = False) -> list[str]:
    """Return the docstrings of a source file, or the values of its dicts (`is_topics`), cleaned as `inspect` does.

    Empty for sources that cannot be parsed: broken on purpose (templates), or written for another Python.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # outdated escapes in others' sources
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    texts = _topics(tree) if is_topics else _docstrings(tree.body, tree)
    return [inspect.cleandoc(text) for text in texts if text.isascii() or _encodable(text)]


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector.

    Parsing makes millions of short-lived nodes without cycles; collecting them takes half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _docstrings(body: list[ast.stmt], owner: ast.AST) -> Iterator[str]:
    """Yield the docstring of `owner`, then those in `body`, outer ones first, in source order."""
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
            name = getattr(node.value.func, "id", getattr(node.value.func, "attr", ""))
            if name in _DOCUMENTING_CALLS:
                for argument in node.value.args:
                    parts = argument.elts if isinstance(argument, ast.Tuple) else [argument]
                    yield from filter(None, map(_constant, parts))


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from filter(None, map(_constant, node.values))


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates in examples
        return False
    return True
