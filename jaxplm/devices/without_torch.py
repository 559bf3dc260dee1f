"""Imports of libraries that would import PyTorch wherever they find it: more than a second that nothing here needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_torch() -> Iterator[None]:
    """Make PyTorch look as if it were not installed inside the block, unless it is imported already.

    Not longer than that: SciPy takes a hidden module for an imported one.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules["torch"]


def import_transformers() -> None:
    """Import transformers, which looks for PyTorch once and remembers that there is none.

    For the command only. In a user's own process that calls `jaxplm.load`, models of transformers may be needed as well.
    """
    with hidden_torch():
        from transformers.utils import import_utils

        import_utils.is_torch_available()
