"""Write and read `comparison.json`: a `Comparison` as strict JSON, whose arrays are compressed bytes in base64."""

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm.data.atomic import write_text
from jaxplm.errors import UserError
from jaxplm.reporting.comparison.comparison import Comparison

FORMAT = 1
MOST_BYTES = 2**30
MOST_VALUES = 2**27  # of one array: a gibibyte of float64
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # strict JSON has no numbers for these


class _Damaged(Exception):
    """Holds what is wrong at a place such as `ways[3].runs[0].seed`."""


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write a comparison to a file that is complete or absent."""
    stored = {"format": FORMAT, "comparison": _encoded(comparison)}
    write_text(path, json.dumps(stored, ensure_ascii=True, allow_nan=False, indent=1) + "\n")


def read_comparison(path: Path) -> Comparison:
    """Read what `write_comparison` wrote.

    Raises:
      UserError: the file is missing, too large, damaged, or of another version.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}: it is not the file of a comparison")
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict) or "comparison" not in stored:
            raise _Damaged("it holds no comparison")
        if (version := stored.get("format")) != FORMAT:
            raise UserError(
                f"{path} has format {version!r}, and this version reads {FORMAT}; repeat the command of the comparison:"
                " finished stages are kept"
            )
        return _decoded(Comparison, stored["comparison"], "comparison")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); it is written at the end of a comparison"
        ) from None
    except RecursionError:
        reason = "its JSON is nested too deeply"
    except _Damaged as error:
        reason = str(error)
    except ValueError as error:  # of JSON and of UTF-8
        reason = f"it is not JSON: {error}"
    raise UserError(
        f"{path} is damaged ({reason}); repeat the command of the comparison: it writes the file again, and finished stages"
        " are kept"
    ) from None


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _encoded(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return _encoded_array(value)
    if isinstance(value, dict):
        return {str(key): _encoded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"comparison.json cannot hold a {type(value).__name__}")


def _encoded_array(values: np.ndarray) -> dict[str, Any]:
    if values.dtype.name not in _DTYPES:
        raise TypeError(f"comparison.json cannot hold an array of {values.dtype}")
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "zlib": base64.b64encode(zlib.compress(little.tobytes(), 6)).decode("ascii"),
    }


def _decoded(kind: Any, value: Any, place: str) -> Any:
    """Return a value of the annotated type `kind` from what JSON holds at `place`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decoded_union(arguments, value, place)
    if dataclasses.is_dataclass(kind):
        return _decoded_object(kind, value, place)
    if kind is np.ndarray or origin is np.ndarray:
        return _decoded_array(value, place)
    if origin is tuple:
        return tuple(_decoded_items(arguments, value, place))
    if origin is dict:
        if not isinstance(value, dict):
            raise _Damaged(f"{place} is no object")
        return {key: _decoded(arguments[1], one, f"{place}.{key}") for key, one in value.items()}
    return _decoded_leaf(kind, value, place)


def _decoded_union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    (kind,) = (one for one in kinds if one is not types.NoneType)
    return _decoded(kind, value, place)


def _decoded_object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _Damaged(f"{place} is no object")
    hints = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(value.keys() - entries.keys()):
        raise _Damaged(f"{place} has the unknown entry {unknown[0]!r}")
    for name, entry in entries.items():
        if name not in value and entry.default is entry.default_factory is dataclasses.MISSING:
            raise _Damaged(f"{place} lacks {name}")
    found = {name: _decoded(hints[name], one, f"{place}.{name}") for name, one in value.items()}
    try:
        return kind(**found)
    except ValueError as error:  # of a class that checks its values
        raise _Damaged(f"{place}: {error}") from None


def _decoded_items(kinds: tuple[Any, ...], value: Any, place: str) -> Iterator[Any]:
    if not isinstance(value, list):
        raise _Damaged(f"{place} is no list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _Damaged(f"{place} has {len(value)} entries instead of {len(kinds)}")
    for i, (kind, one) in enumerate(zip(kinds, value, strict=True)):
        yield _decoded(kind, one, f"{place}[{i}]")


def _decoded_leaf(kind: Any, value: Any, place: str) -> Any:
    if kind is float and value in _NOT_FINITE:
        return float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if type(value) is not kind:
        raise _Damaged(f"{place} is {str(value)[:40]!r} and no {kind.__name__}")
    return value


def _decoded_array(value: Any, place: str) -> np.ndarray:
    try:
        shape, dtype = [int(size) for size in value["shape"]], value["dtype"]
        if dtype not in _DTYPES or len(shape) > 4 or min(shape, default=0) < 0 or math.prod(shape) > MOST_VALUES:
            raise _Damaged(f"{place} has the type {str(dtype)[:40]!r} and the shape {str(shape)[:40]}")
        kind = np.dtype(dtype).newbyteorder("<")
        size = math.prod(shape) * kind.itemsize
        found = zlib.decompressobj().decompress(base64.b64decode(value["zlib"], validate=True), size + 1)
    except (TypeError, KeyError, ValueError, OverflowError, binascii.Error, zlib.error) as error:
        raise _Damaged(f"{place} is no array: {error!r}"[:300]) from None
    if len(found) != size:
        raise _Damaged(f"{place} has not the bytes of its shape {shape}")
    return np.frombuffer(found, kind).reshape(shape).astype(np.dtype(dtype), copy=True)
