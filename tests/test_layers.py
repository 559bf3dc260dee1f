"""The architecture as it is written down: imports point down only, and each thing has its one place."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxplm"

# Top to bottom. A module may import from lower layers, and from its own as long as no circle arises.
LAYERS = (
    ("__init__", "main"),
    ("train", "evaluate", "evaluate_task", "pretraining", "downstream", "seeds", "embeddings"),
    ("start", "new_model", "extended_model", "measured_vocabulary", "job", "vectors", "predict", "sweep", "labelled_sets"),
    ("step",),
    ("tasks",),
    ("checkpoint", "digest", "manifest", "stored", "interrupt", "workdir", "runtime", "logs", "report", "plots", "tables",
     "fonts", "confusion_plot", "predictions", "vocab_report", "vocab_plot"),
    ("hf", "vocab", "optim", "sharding"),
    ("nn",),
    ("data", "scores"),
    ("batch", "metrics", "config", "errors", "version", "huge_pages"),
)
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(module: str) -> frozenset[str]:
    """The dotted names that a module imports, wherever in it; `from a import b` gives a.b."""
    path = MODULES[module]
    package = ["jaxplm", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = [*package[: len(package) - node.level + 1]] if node.level else []
            origin += [node.module] if node.module else []
            found |= {".".join([*origin, alias.name]) for alias in node.names}
    return frozenset(found)


def inner(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        if name == "jaxplm" or not name.startswith("jaxplm."):
            continue
        parts = name.split(".")[1:]
        # The longest part of jaxplm.a.b.c that is a module; a name that is none comes from the package's __init__.
        candidates = [".".join(parts[:n] + tail) for n in range(len(parts), 0, -1) for tail in ([], ["__init__"])]
        found.add(next((c for c in candidates if c in MODULES), "__init__"))
    return found - {module}


def part_of(module: str) -> str:
    return module.split(".")[0]


def test_there_is_something_to_check():
    assert len(MODULES) > 30
    assert {"optim", "checkpoint", "workdir"} <= inner("train") | inner("pretraining")
    assert inner("sharding") == {"config", "errors", "optim"}


def test_every_module_has_a_layer():
    assert {part_of(module) for module in MODULES} == LEVEL.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    wrong = [other for other in sorted(inner(module)) if LEVEL[part_of(other)] < LEVEL[part_of(module)]]
    assert not wrong, f"jaxplm/{module} imports {wrong}, which stand above it: move what it needs down, or the module up"


def test_no_circles():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle of imports: {' → '.join([*path[path.index(module):], module])}"
        if module not in done:
            for other in sorted(inner(module)):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def outside(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} - {"jaxplm"}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "data"])
def test_data_knows_no_jax(module):
    """The data path runs in processes and threads that must not wait for, or hold, a device."""
    assert not outside(module) & {"jax", "jaxlib", "flax", "optax", "orbax", "torch"}


def test_what_is_below_everything_stays_light():
    """A wrong flag is answered before JAX is imported."""
    for module in ("main", "config", "errors", "version", "metrics", "batch"):
        top = {name.split(".")[0] for node in ast.parse(MODULES[module].read_text("utf-8")).body
               for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                            else [node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
        assert not top & {"jax", "flax", "optax", "orbax", "transformers", "datasets", "torch", "matplotlib"}, module


def test_torch_is_for_tests_alone():
    """The one mention is a command that users run to convert a pickle."""
    assert [module for module in MODULES if "torch" in outside(module)] == []


# The names of transformers' parameters: with these, weights could be read or written.
THEIR_NAMES = re.compile(
    r"word_embeddings|position_embeddings|token_type_embeddings|attention\.self|attention\.output|intermediate\.dense"
    r"|output\.dense|LayerNorm\.(weight|bias)|cls\.predictions|(?<!m)lm_head|pooler\.dense|num_hidden_layers|hidden_dropout_prob")


def strings(path: Path) -> list[str]:
    """The string constants of a file, docstrings left out."""
    tree = ast.parse(path.read_text("utf-8"))
    documents = {id(node.body[0].value) for node in ast.walk(tree)
                 if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                 and node.body and isinstance(node.body[0], ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents]


def test_only_hf_knows_the_names_of_transformers():
    found = {module for module, path in MODULES.items() if any(THEIR_NAMES.search(text) for text in strings(path))}
    assert {"hf.names", "hf.config"} <= found
    assert {part_of(module) for module in found} == {"hf"}, found


def test_files_are_small_and_have_a_subject():
    for path in (path for folder in ("jaxplm", "configs", "benchmarks", "docs", "tests") for path in ROOT.glob(f"{folder}/**/*.py")):
        name, text = path.relative_to(ROOT), path.read_text("utf-8")
        assert text.count("\n") <= 370, f"{name} has {text.count(chr(10))} lines: divide it by subject"
        assert path.stem not in ("utils", "util", "common", "misc"), f"{name}: name it after what it does"
        if text and "tests" not in name.parts:
            assert ast.get_docstring(ast.parse(text)), f"{name} does not say what it is for"
