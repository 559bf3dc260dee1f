"""Code in the documentation, so that tests can run what a page shows."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"


def run_code(page: str) -> dict[str, Any]:
    """Run the Python blocks of a page in order, and return the names that they define."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no code"
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names
