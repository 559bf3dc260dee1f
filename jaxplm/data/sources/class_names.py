"""Names of numbered classes, as HF `datasets` keeps them: in the features of a hub data set and in the metadata of its Parquet files."""

import json
from collections.abc import Mapping
from typing import Any

from jaxplm.errors import UserError


def names_in_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return {column: names of its classes} of a Parquet file that HF `datasets` wrote; {} for any other file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        found = {column: _names(feature) for column, feature in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if names}


def _names(feature: Any) -> list[str] | None:
    """Return the names in the description of a column of classes, or of lists of them; None for other columns."""
    while isinstance(feature, list) and len(feature) == 1 or isinstance(feature, dict) and "feature" in feature:
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def named(value: Any, names: list[str], column: str, where: object) -> Any:
    """Return a cell with the names of its classes in place of their numbers; None for -1, the mark of a label that is not given.

    Raises:
      UserError: a number without a name.
    """
    if isinstance(value, list):
        return [named(one, names, column, where) for one in value]
    if not isinstance(value, int):
        return value
    if value >= len(names):
        raise UserError(f"{where}: column {column!r} has the class {value}, but names for {len(names)} classes only")
    return None if value < 0 else names[value]
