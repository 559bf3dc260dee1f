"""The description of a checkpoint: the paths, shapes, dtypes and checksums of its leaves, and its metric.

It is written beside the arrays as `about/metadata`, a JSON object with its own SHA-256.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax

from jaxplm.checkpoint.checksums import checksums
from jaxplm.errors import UserError


class Damaged(Exception):
    """A checkpoint that cannot be read, or whose numbers are not those that were written."""


def flatten(state: Any) -> dict[str, Any]:
    """Return the leaves of a state by path, {"params.encoder.blocks....": leaf}. The file does not record container types.

    Raises:
      TypeError: a leaf is no `jax.Array` (nor a `jax.ShapeDtypeStruct`).
    """
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    flat = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the state have the same path")
    for path, leaf in flat.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise TypeError(f"{path} is a {type(leaf).__name__}, not a jax.Array")
    return flat


def describe(leaves: dict[str, jax.Array], metric: float | None, note: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what is written beside the leaves; see `read`. Nothing is written for a note that is None."""
    sums = checksums(list(leaves.values()))
    body = {
        "metric": metric,
        "leaves": {path: [list(leaf.shape), str(leaf.dtype), value] for (path, leaf), value in zip(leaves.items(), sums, strict=True)},
    }
    if note is not None:
        body["note"] = note
    return body | {"sha256": _sha256(body)}


def read(folder: Path) -> dict[str, Any]:
    """Return the description in a checkpoint's folder: {"metric": float | None, "leaves": {path: [shape, dtype, checksum]}},
    and "note" where one was given.

    Raises:
      Damaged: it is not there, not JSON, or was changed.
    """
    try:
        about = json.loads((folder / "about" / "metadata").read_text("utf-8"))
        given = about.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged("its description cannot be read") from error
    if given != _sha256(about):
        raise Damaged("its description was changed")
    return about


def _sha256(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def require_same(have: dict[str, Any], want: dict[str, Any], folder: Path) -> None:
    """Raise a UserError that names the leaves that differ, if any do."""
    problems = [f"{path} is missing" for path in want if path not in have]
    problems += [f"{path} is not of this model" for path in have if path not in want]
    for path in (path for path in want if path in have):
        shape, dtype, _ = have[path]
        if (tuple(shape), dtype) != (want[path].shape, str(want[path].dtype)):
            problems.append(f"{path} is {dtype}{shape} and not {want[path].dtype}{list(want[path].shape)}")
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UserError(f"incompatible checkpoint {folder}: {'; '.join(problems[:4])}{more}")
