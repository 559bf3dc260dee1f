"""Rows of .csv and .tsv files."""

import csv
from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources import text_stream
from jaxplm.errors import UserError


def read_delimited(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[dict[str, str] | None]:
    """Yield the rows below a header row; None for a row of another width than the header's.

    Quotes have a meaning in .csv files only: .tsv has no quoting (IANA text/tab-separated-values), and review corpora
    are full of single `"` that would swallow the rows after them.

    Raises:
      UserError: a row that the csv module cannot parse.
    """
    csv.field_size_limit(text_stream.MAX_TEXT_CHARS)
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            return
        for row in reader:
            if row:
                yield dict(zip(header, row, strict=True)) if len(row) == len(header) else None
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: {error}") from error
