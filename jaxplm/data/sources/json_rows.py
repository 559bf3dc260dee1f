"""Rows of JSON files: one object per line, an array of objects, or SQuAD; decoded piece by piece.

The array is decoded here and not by ijson: its fast backend refuses NaN, which pandas and Python write, and integers of
more than 64 bits, and silently replaces a lone surrogate by "?", so that it could not be counted. It would be
1.3 times as fast.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources.columns import Row
from jaxplm.errors import UserError

_READ_CHARS = 1 << 20


def read_json_lines(lines: Iterator[str]) -> Iterator[Row | None]:
    """Yield one row per line that is not blank; None for a line that is not a JSON object."""
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        yield row if isinstance(row, dict) else None


def read_json(path: Path, stream: io.TextIOBase) -> Iterator[Row | None]:
    """Yield the rows of a .json file: an array of objects, SQuAD, `{"data": [rows]}`, or JSON lines under that name.

    SQuAD gives one row per question: `id title context question answers`, the last None where the file has none, and
    the `is_impossible` of SQuAD 2.0. It is read whole; arrays and lines are not.

    Raises:
      UserError: invalid JSON, or none of these shapes.
    """
    buffer = stream.read(_READ_CHARS).lstrip()
    if buffer.startswith("["):
        yield from _read_array(path, buffer[1:], stream)
        return
    first, _, following = buffer.partition("\n")
    try:
        is_lines = isinstance(json.loads(first), dict) and following.lstrip()[:1] in ("{", "")
    except ValueError:
        is_lines = False
    if is_lines and following.strip():
        yield from read_json_lines(_lines(buffer, stream))
        return
    try:
        value = json.loads(buffer + stream.read())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    rows = value.get("data") if isinstance(value, dict) else None
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        yield from _read_squad(path, rows) if "paragraphs" in rows[0] else rows
    elif is_lines:
        yield value
    else:
        raise UserError(f"{path} holds neither an array of objects nor SQuAD's data/paragraphs nor JSON lines")


def _lines(beginning: str, stream: io.TextIOBase) -> Iterator[str]:
    """Yield the lines of a stream of which `beginning` has been read."""
    *lines, unfinished = beginning.split("\n")
    yield from lines
    yield unfinished + stream.readline()
    yield from iter(stream.readline, "")


def _read_array(path: Path, buffer: str, stream: io.TextIOBase) -> Iterator[Row]:
    """Yield the objects of an array whose `[` has been read."""
    decoder = json.JSONDecoder()
    separator = re.compile(r"[\s,]*")
    position = number = 0
    step = _READ_CHARS
    while True:
        position = separator.match(buffer, position).end()  # type: ignore[union-attr]
        if buffer.startswith("]", position):
            return
        try:
            value, position = decoder.raw_decode(buffer, position)
        except ValueError as error:
            more = stream.read(step)
            if not more:
                raise UserError(f"{path} is not valid JSON: element {number}: {error}") from error
            buffer, position = buffer[position:] + more, 0
            step *= 2  # so that an element of many MB is tried a few times, and not once per MB
            continue
        step = _READ_CHARS
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
