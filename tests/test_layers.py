"""The architecture as it is written down: imports point down only, and each thing has its one place."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxplm"

# Rooms, top to bottom. A room imports from lower lines, and from its own line as long as no circle arises.
ROOMS = (
    ("__init__",),
    ("library",),
    ("main",),
    ("recipes",),
    ("engine",),
    ("tasks",),
    ("checkpoint", "reporting", "hf", "vocab"),
    ("devices",),
    ("nn",),
    ("data", "scores"),
    ("config", "errors", "version"),
)
FLOOR = {room: floor for floor, line in enumerate(ROOMS) for room in line}
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


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_there_is_something_to_check():
    assert len(MODULES) > 100
    assert {"engine.setup", "checkpoint.manager", "engine.workdir"} <= inner("engine.loop")
    assert inner("devices.sharding") == {"config", "devices.processes", "errors", "nn.paths"}


def test_the_root_of_the_package_is_its_rooms():
    assert {room_of(module) for module in MODULES} == FLOOR.keys()
    files = {module for module in MODULES if "." not in module}
    assert files == {"__init__", "main", "config", "errors", "version"}


def test_imports_point_down():
    upward = [f"{module} → {other}" for module in MODULES for other in sorted(inner(module))
              if FLOOR[room_of(other)] < FLOOR[room_of(module)]]
    assert not upward, "move what is imported down, or the importing module up"


def test_recipes_do_not_import_each_other():
    """What two recipes share belongs into `recipes/<the one that makes it>` by name, or into the engine."""
    shared = {("evaluate", "pretrain"), ("evaluate", "finetune"), ("adapt", "finetune"),  # they read data as training does
              ("select", "finetune"), ("select", "embed")}  # selection reads a task as training does, and compares embeddings
    crossing = {(module.split(".")[1], other.split(".")[1]) for module in MODULES for other in inner(module)
                if module.count(".") > 1 and room_of(module) == room_of(other) == "recipes" and other.count(".") > 1}
    assert {(a, b) for a, b in crossing if a != b} <= shared


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


def test_data_and_scores_know_no_jax():
    """The data path runs in processes and threads that must not wait for, or hold, a device."""
    devices = {"jax", "jaxlib", "flax", "optax", "orbax", "torch"}
    assert [module for module in MODULES if room_of(module) in ("data", "scores") and outside(module) & devices] == []


def test_what_is_below_everything_stays_light():
    """A wrong flag is answered before JAX is imported."""
    for module in ("main", "config", "errors", "version", "scores.sums", "data.batch"):
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
    assert {"hf.families", "hf.config"} <= found
    assert {room_of(module) for module in found} == {"hf"}, found


def test_files_say_their_subject():
    for path in (path for folder in ("jaxplm", "configs", "benchmarks", "docs", "tests") for path in ROOT.glob(f"{folder}/**/*.py")):
        name, text = path.relative_to(ROOT), path.read_text("utf-8")
        assert path.stem not in ("utils", "util", "common", "misc"), f"{name}: name it after what it does"
        if text and "tests" not in name.parts:
            assert ast.get_docstring(ast.parse(text)), f"{name} does not say what it is for"
