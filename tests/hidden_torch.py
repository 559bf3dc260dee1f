"""Hide PyTorch from a process in which it is installed."""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class _WithoutTorch(PathFinder):
    """Finds what `PathFinder` finds, but for PyTorch."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if fullname.split(".")[0] == "torch" else PathFinder.find_spec(fullname, path, target)


def hide() -> None:
    """Make PyTorch look as if it were not installed. Not by None in `sys.modules`: SciPy takes that for an imported PyTorch."""
    sys.meta_path[:] = [_WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
