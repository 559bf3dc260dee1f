"""Rows of JSON files: one object per line, an array of objects, or SQuAD; decoded piece by piece.

The array is decoded here and not by ijson: its fast backend refuses NaN, which pandas and Python write, and integers of
more than 64 bits, and silently replaces a lone surrogate by "?", so that it could not be counted. It would be
1.3 times as fast.
"""

import contextlib
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.data.sources import text_stream
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.data.sources.docstrings import collector_paused
from jaxplm.data.sources.text_stream import too_long
from jaxplm.errors import UserError

_READ_CHARS = 1 << 20
# Rows in which keys that stand twice are looked for. It takes time, and a file that has them has them everywhere.
_CHECKED_ROWS = 100
_BLANK = re.compile(r"[ \t\n\r]*")
_SEPARATORS = re.compile(r"[\s,]*")


def read_json_lines(path: Path, lines: Iterator[str], columns: WantedColumns) -> Iterator[Row | None]:
    """Yield one row per line that is not blank; None for a line that is not a JSON object.

    Raises:
      UserError: an object has the key of a column that is read twice.
    """
    decoder = _checking(path, columns)
    rows = 0
    for line in lines:
        line = line.strip()
        if not line:
            continue
        try:
            row, end = decoder.raw_decode(line)
        except (ValueError, RecursionError):
            row = None
        else:
            row = row if end == len(line) and isinstance(row, dict) else None
        yield row
        rows += 1
        if rows == _CHECKED_ROWS:
            decoder = json.JSONDecoder()


def read_json(path: Path, stream: io.TextIOBase, columns: WantedColumns) -> Iterator[Row | None]:
    """Yield the rows of a .json file: an array of objects, SQuAD, `{"data": [rows]}`, or JSON lines under that name.

    SQuAD gives one row per question: `id title context question answers`, the last None where the file has none, and
    the `is_impossible` of SQuAD 2.0. The `id` may be called `guid`, and is left out where there is none.

    Raises:
      UserError: invalid JSON, none of these shapes, or a row that is too long.
    """
    values = _Values(path, stream, columns)
    if values.next_char() == "[":
        yield from values.objects()
        if values.next_char():
            raise UserError(f"{path} is not valid JSON: more follows after the array")
        return
    first_line = values.line()
    try:
        first = values.decoder.decode(first_line)
    except ValueError:
        first = None
    # A document of one line and JSON lines begin alike.
    if isinstance(first, dict):
        values.position += len(first_line)
        following = values.next_char()
        if following == "{":
            yield from read_json_lines(path, itertools.chain([first_line], values.lines()), columns)
            return
        if not following:
            rows = first.get("data")
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                yield from _rows_of(path, iter(rows))
            else:
                yield first
            return
        raise UserError(f"{path} is not valid JSON: {following!r} follows the object in its first line")
    if values.next_char() != "{":
        raise UserError(f"{path} holds neither an array of objects nor SQuAD's data/paragraphs nor JSON lines")
    yield from _rows_of(path, _document(path, values))


def _document(path: Path, values: "_Values") -> Iterator[Row]:
    """Yield the objects of the list `data` in an object; its other members are passed over."""
    values.take("{")
    rows = 0
    while values.next_char() != "}":
        key = values.value("the object")
        values.take(":")
        if key == "data" and values.next_char() == "[":
            for row in values.objects():
                yield row
                rows += 1
        else:
            values.value(f"the value of {str(key)[:60]!r}")
        if values.next_char() != "}":
            values.take(",")
    values.take("}")
    if values.next_char():
        raise UserError(f"{path} is not valid JSON: more follows after the object; give JSON lines one object per line")
    if not rows:
        raise UserError(f"{path} holds neither an array of objects nor SQuAD's data/paragraphs nor JSON lines")


class _Values:
    """A stream of JSON of which values are decoded one by one.

    Attributes:
      position: the first character of the buffer that has not been used.
      decoder: decodes a value.
    """

    def __init__(self, path: Path, stream: io.TextIOBase, columns: WantedColumns) -> None:
        self._path, self._stream, self._columns = path, stream, columns
        self._buffer = ""
        self._ended = False
        self.position = 0
        self.decoder = _checking(path, columns)

    def next_char(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            self.position = _BLANK.match(self._buffer, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self._buffer) or not self._read(_READ_CHARS):
                return self._buffer[self.position : self.position + 1]

    def take(self, char: str) -> None:
        """Pass over a character, which must be the next one."""
        if self.next_char() != char:
            found = self.next_char()
            raise UserError(f"{self._path} is not valid JSON: {found!r} stands where {char!r} should"
                            if found else f"{self._path} is not valid JSON: it ends before {char!r}")
        self.position += 1

    def line(self) -> str:
        """Return the rest of the line; "" where it is too long for one row. It is not passed over."""
        begin = self.position
        step = _READ_CHARS
        while True:
            end = self._buffer.find("\n", begin)
            length = (end if end >= 0 else len(self._buffer)) - self.position
            if length > text_stream.MAX_RECORD_CHARS:
                return ""
            if end >= 0 or self._ended:
                return self._buffer[self.position : self.position + length]
            begin = len(self._buffer)
            kept = self.position
            self._read(step)
            begin -= kept - self.position
            step *= 2

    def lines(self) -> Iterator[str]:
        """Yield the lines that follow."""
        number = 1
        while self.next_char():
            line = self.line()
            number += 1
            if not line:
                raise too_long(self._path, f"row {number}")
            self.position += len(line)
            yield line

    def objects(self) -> Iterator[Row]:
        """Yield the objects of an array."""
        self.take("[")
        number = 0
        while True:
            self.position = _SEPARATORS.match(self._buffer, self.position).end()  # type: ignore[union-attr]
            char = self.next_char()
            if char == ",":
                continue
            if char == "]":
                self.position += 1
                return
            value = self.value(f"element {number}")
            if not isinstance(value, dict):
                raise UserError(f"{self._path}: element {number} of the array is not an object with columns")
            yield value
            number += 1
            if number == _CHECKED_ROWS:
                self.decoder = json.JSONDecoder()

    def value(self, what: str) -> Any:
        """Return the next value; `what` names it in messages."""
        self.next_char()
        step = _READ_CHARS
        while True:
            try:
                with collector_paused() if step > _READ_CHARS else contextlib.nullcontext():
                    value, end = self.decoder.raw_decode(self._buffer, self.position)
            except ValueError as error:
                if len(self._buffer) - self.position > text_stream.MAX_RECORD_CHARS:
                    raise UserError(f"{self._path} {what} is longer than {text_stream.MAX_RECORD_CHARS:,} characters, or is"
                                    f" not valid JSON ({error})") from error
                if self._ended:
                    raise UserError(f"{self._path} is not valid JSON: {what}: {error}") from error
            else:
                if end < len(self._buffer) or self._ended:  # else the digits of a number may follow
                    self.position = end
                    return value
            self._read(step)
            step *= 4  # so that a value of many MB is tried a few times, and not once per MB

    def _read(self, chars: int) -> bool:
        """Read on, and drop what has been used; return whether there was more."""
        room = text_stream.MAX_RECORD_CHARS + 1 - (len(self._buffer) - self.position)
        more = self._stream.read(max(1, min(chars, room)))
        self._ended = not more
        self._buffer, self.position = self._buffer[self.position :] + more, 0
        return bool(more)


def _checking(path: Path, columns: WantedColumns) -> json.JSONDecoder:
    """Return a decoder that refuses an object with a key that stands twice and names a column that is read."""
    def as_dict(pairs: list[tuple[str, Any]]) -> Row:
        found = dict(pairs)
        if len(found) < len(pairs):
            columns.check_once((key for key, _ in pairs), path)
        return found

    return json.JSONDecoder(object_pairs_hook=as_dict)


def _rows_of(path: Path, objects: Iterator[Any]) -> Iterator[Row]:
    """Yield the rows of the list `data`: the objects themselves, or the questions of SQuAD's articles."""
    for number, value in enumerate(objects):
        if not isinstance(value, dict):
            raise UserError(f"{path}: element {number} of data is not an object with columns")
        if "paragraphs" in value:
            yield from _read_article(f"{path}: not SQuAD 1.1 or 2.0: article {number + 1}", value)
        else:
            yield value


def _read_article(where: str, article: Row) -> Iterator[Row]:
    for paragraph in _list(where, article, "paragraphs"):
        context = _member(where, paragraph, "context")
        for question in _list(where, paragraph, "qas"):
            text = _member(where, question, "question")
            name = question.get("id", question.get("guid"))
            row = {} if name is None else {"id": name}
            row |= {"title": article.get("title", ""), "context": context, "question": text,
                    "answers": question.get("answers")}
            yield row | ({"is_impossible": question["is_impossible"]} if "is_impossible" in question else {})


def _member(where: str, value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise UserError(f"{where} lacks {name!r}")
    return value[name]


def _list(where: str, value: Any, name: str) -> list[Any]:
    found = _member(where, value, name)
    if not isinstance(found, list):
        raise UserError(f"{where}: {name!r} is not a list")
    return found
