"""Compare ways of adaptation in this process, which starts the stages as processes of their own."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jaxplm.errors import UserError
from jaxplm.library import running
from jaxplm.reporting.comparison.comparison import Comparison
from jaxplm.reporting.comparison.stored import read_comparison


def compare(workdir: str | os.PathLike[str] | None, ways: Sequence[str] | None, fields: Mapping[str, Any]) -> Comparison:
    """Run the recipe adapt and return what its report shows; see `jaxplm.compare`."""
    if ways is not None:
        if "adapt.ways" in fields:
            raise UserError("jaxplm.compare: give the ways as ways=(...) or as the field adapt.ways, not both")
        fields = {**fields, "adapt.ways": ways}
    if fields.get("adapt.dry_run"):
        raise UserError("adapt.dry_run=True: a plan is no comparison; jaxplm.run(\"adapt\", ...) shows it")
    return read_comparison(running.run("adapt", workdir, fields).workdir / "comparison.json")
