"""Rows, and those of JSON files: one object a line, an array of objects, or SQuAD; decoded piece by piece."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.errors import UserError

Row = dict[str, Any]


def missing_column(where: object, column: str, names: list[str], field: str = "data.text") -> UserError:
    """The error for a column that is not there: names the columns that are, and the field that chooses it, if any."""
    shown = ", ".join(repr(name) for name in names[:12]) + (" …" if len(names) > 12 else "")
    return UserError(f"{where} has no column {column!r}; it has {shown or 'none'}" + (f" (set {field})" if field else ""))


def read_json_lines(lines: Iterator[str], counts: Counter[str]) -> Iterator[Row]:
    """One JSON object a line; lines that are none are counted as `malformed`."""
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        else:
            counts["malformed"] += 1


def read_json(path: Path, stream: io.TextIOBase, counts: Counter[str]) -> Iterator[Row]:
    """Rows of a .json file: an array of objects, SQuAD, `{"data": [rows]}`, or JSON lines under that name.

    An array is decoded object by object. SQuAD gives a row a question: `id title context question answers`, the
    last None where the file has none, and SQuAD 2.0's `is_impossible`.
    """
    buffer = stream.read(1 << 20).lstrip()
    if buffer.startswith("["):
        yield from _read_array(path, buffer[1:], stream)
        return
    first, _, second = buffer.partition("\n")
    try:
        is_lines = isinstance(json.loads(first), dict) and second.lstrip()[:1] in ("{", "")
    except ValueError:
        is_lines = False
    value = None
    if is_lines and second.strip():
        rest = iter(stream.readline, "")
        yield from read_json_lines(_chain_lines(buffer, rest), counts)
        return
    try:
        value = json.loads(buffer + stream.read())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    rows = value.get("data") if isinstance(value, dict) else None
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        yield from _read_squad(path, rows) if "paragraphs" in rows[0] else rows
    elif is_lines and isinstance(value, dict):
        yield value
    else:
        raise UserError(
            f"{path} holds neither an array of objects nor SQuAD's data/paragraphs nor JSON lines"
        )


def _chain_lines(buffer: str, rest: Iterator[str]) -> Iterator[str]:
    lines = buffer.split("\n")
    yield from lines[:-1]
    yield lines[-1] + next(rest, "")
    yield from rest


def _read_array(path: Path, buffer: str, stream: io.TextIOBase) -> Iterator[Row]:
    decoder = json.JSONDecoder()
    position = number = 0
    step = 1 << 20
    skip = re.compile(r"[\s,]*")
    while True:
        position = skip.match(buffer, position).end()  # type: ignore[union-attr]
        if buffer.startswith("]", position):
            return
        try:
            value, position = decoder.raw_decode(buffer, position)
        except ValueError as error:
            more = stream.read(step)
            if not more:
                raise UserError(f"{path} is not valid JSON: element {number}: {error}") from error
            buffer, position = buffer[position:] + more, 0
            step *= 2  # an element of many MB is then retried a few times, not once for each MB
            continue
        step = 1 << 20
        if not isinstance(value, dict):
            raise UserError(f"{path}: element {number} of the array is not an object with columns")
        yield value
        number += 1


def _read_squad(path: Path, articles: list[Row]) -> Iterator[Row]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    row = {
                        "id": question["id"],
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": question.get("answers"),
                    }
                    yield row | ({"is_impossible": question["is_impossible"]} if "is_impossible" in question else {})
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not SQuAD 1.1 or 2.0: {error!r} is missing") from error
