"""Rows of .csv and .tsv files."""

import csv
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources import text_stream
from jaxplm.data.sources.columns import WantedColumns
from jaxplm.data.sources.text_stream import too_long
from jaxplm.errors import UserError

# Different values of a column that are remembered: a column of labels has few.
_MAX_VALUES = 1000


def read_delimited(
    path: Path, lines: Iterator[str], delimiter: str, columns: WantedColumns
) -> Iterator[dict[str, str] | None]:
    """Yield the rows below a header row; None for a row of another width than the header's.

    Quotes have a meaning in .csv files only: .tsv has no quoting (IANA text/tab-separated-values), and review corpora
    are full of single `"` that would swallow the rows after them. In .csv files a field may hold line ends between
    quotes; a quote that is not closed is an error.

    Raises:
      UserError: a row that the csv module cannot parse, a quote without its end, or two columns of the name of one that
        is read.
    """
    # An open quote makes a field of the rest of the file. `_Record` answers that with the place where it starts.
    csv.field_size_limit(text_stream.MAX_RECORD_CHARS + 1)
    record = _Record(path, lines)
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(record, delimiter=delimiter, quoting=quoting)
    header: list[str] | None = None
    ends = _EndColumns()
    try:
        for row in reader:
            if len(record.lines) > 1:
                _check_quotes(record, header, ends)
            if row and header is None:
                columns.check_once(row, path)
                header = row
            elif row and header is not None:
                whole = len(row) == len(header)
                if whole:
                    ends.add(row)
                yield dict(zip(header, row, strict=True)) if whole else None
            record.clear()
        # The rows end after an open quote in the last line too. An open quote takes one more line into its row.
        if record.last and delimiter != "\t" and len(list(csv.reader([record.last, "x"]))) == 1:
            record.first -= 1
            raise record.open_quote()
    except csv.Error as error:
        raise UserError(f"{path} line {record.first}: {error}") from error


class _Record:
    """Hands on lines, and keeps those of the record that is being read.

    Attributes:
      path: the file.
      first: number of the record's first line, from 1.
      lines: the record's lines.
      last: the line before the record.
    """

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self.path = path
        self.first = 1
        self.lines: list[str] = []
        self.last = ""
        self._source = lines
        self._chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._source)
        self.lines.append(line)
        self._chars += len(line)
        if self._chars > text_stream.MAX_RECORD_CHARS or len(self.lines) > text_stream.MAX_RECORD_LINES:
            if len(self.lines) > 1:
                raise self.open_quote()
            raise too_long(self.path, f"line {self.first}")
        return line

    def clear(self) -> None:
        """Begin the next record."""
        self.last = self.lines[-1] if self.lines else self.last
        self.first += len(self.lines)
        self.lines = []
        self._chars = 0

    def open_quote(self) -> UserError:
        return UserError(
            f'{self.path} line {self.first}: a field that begins with a quote (") is not closed by one; close it, write a'
            ' quote inside a quoted field as "", or save the file as .tsv, where quotes have no meaning'
        )


class _EndColumns:
    """Remembers the values of the first and the last column, one of which mostly holds the label."""

    def __init__(self) -> None:
        self._values: tuple[set[str], set[str]] = (set(), set())

    def add(self, row: list[str]) -> None:
        for values, cell in zip(self._values, (row[0], row[-1]), strict=True):
            if len(values) < _MAX_VALUES:
                values.add(cell)

    def know(self, rows: list[list[str]], column: int) -> bool:
        """Return whether the first (0) or the last (-1) column has had all of the values that it has in `rows`."""
        return bool(rows) and all(row[column] and row[column] in self._values[column] for row in rows)


def _check_quotes(record: _Record, header: list[str] | None, ends: _EndColumns) -> None:
    """Raise `UserError` where a record of several lines has an open quote and so has swallowed other rows.

    That is so where its quotes are not those of a well-formed file, or where its lines are themselves rows with known
    labels: a quote in a later row has closed the field.
    """
    try:
        list(csv.reader(record.lines, strict=True))
    except csv.Error:
        raise record.open_quote() from None
    if header is None or len(header) < 2:
        return
    rows = list(csv.reader(line.replace('"', "") for line in record.lines))
    begun, ended = rows[1:], rows[:-1]  # the lines that begin, or end, inside the field
    for part, column in ((begun, 0), (ended, -1)):
        if all(len(row) == len(header) for row in part) and ends.know(part, column):
            raise record.open_quote()
