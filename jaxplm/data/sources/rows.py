"""Rows of a source, of whatever kind and format: the one place that chooses a reader."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jaxplm.data.sources import plain_text, text_stream
from jaxplm.data.sources.builtin import BuiltinSource
from jaxplm.data.sources.columns import Row, WantedColumns, require_columns
from jaxplm.data.sources.conll import Layout, are_characters, find_layout, join_tokens, read_conll
from jaxplm.data.sources.delimited import read_delimited
from jaxplm.data.sources.formats import check_format
from jaxplm.data.sources.hub import HubSource
from jaxplm.data.sources.json_rows import read_json, read_json_lines
from jaxplm.data.sources.parquet import read_parquet
from jaxplm.data.sources.text_stream import errors_named, open_text, too_long, whole_lines
from jaxplm.errors import UserError

# Sentences of a CoNLL file by which its tokens are known to be words or characters.
_SAMPLE_SENTENCES = 1000

Source = Path | HubSource | BuiltinSource


def source_name(source: Source) -> str:
    """Return what the user calls a source: the path, `hf:<name>` or `builtin:<name>`."""
    if isinstance(source, Path):
        return str(source)
    return f"hf:{source.name}" if isinstance(source, HubSource) else f"builtin:{source.name}"


class SourceRows:
    """The rows of one source in their order.

    None stands for a row that cannot be parsed, so that numbers of rows stay right.

    Memory does not grow with the source. A line or a record that is too long to be one is an error.

    Args:
      source: a file, a hub data set or a built-in corpus.
      columns: which columns are wanted; a .txt file has texts only, and so takes one required column at most.
      lines: of a .txt file: see `plain_text.has_text_per_line`.
      every_line: of a .txt file read by lines: one row per line, even of a line over the length limit, of which the
        beginning is taken.
      patience: rows of a file after which a required column that none of them has is an error; None: at the end.

    Attributes:
      cut: how many texts of a .txt file were cut for their length so far.
      layout: the columns of token and tag that were found in a file of tagged sentences; None for other sources.

    Raises:
      UserError: while iterating: an unreadable file, or a required column that no row has.
    """

    def __init__(self, source: Source, columns: WantedColumns, *, lines: str = "auto", every_line: bool = False,
                 patience: int | None = None) -> None:
        self._source, self._columns = source, columns
        self._lines, self._every_line, self._patience = lines, every_line, patience
        self._tell: Callable[[], int] = lambda: 0
        self._rows = 0
        self.cut = 0
        self.layout: Layout | None = None

    @property
    def name(self) -> str:
        """What the user calls the source."""
        return source_name(self._source)

    @property
    def position(self) -> int:
        """How many bytes of the file have been read, as it is stored; 0 for other sources."""
        return self._tell()

    def __iter__(self) -> Iterator[Row | None]:
        if isinstance(self._source, HubSource):
            yield from self._source.rows(self._columns)
        elif isinstance(self._source, BuiltinSource):
            yield from self._checked(self._source.rows(self._columns.text, self._columns.label))
        else:
            yield from self._read_file(self._source)

    def _read_file(self, path: Path) -> Iterator[Row | None]:
        kind = check_format(path)
        self._rows = 0
        with errors_named(path, self._place), path.open("rb") as raw:
            self._tell = raw.tell
            try:
                for row in self._file_rows(kind, path, raw):
                    yield row
                    self._rows += 1
            finally:
                self._tell = lambda: 0

    def _place(self) -> str:
        return f" after row {self._rows}" if self._rows else ""

    def _file_rows(self, kind: str, path: Path, raw: BinaryIO) -> Iterator[Row | None]:
        if kind == ".parquet":
            yield from read_parquet(path, self._columns)
            return
        with open_text(path, raw) as stream:
            if self._columns.tagged and kind in (".conll", ".tsv", ".txt"):
                yield from self._checked(self._tagged_rows(_sentence_lines(path, stream), *self._columns.tagged))
            elif kind == ".txt":
                yield from self._text_rows(path, stream)
            else:
                yield from self._checked(_column_rows(kind, path, stream, self._columns))

    def _tagged_rows(self, lines: Iterator[str], tokens: str, tags: str) -> Iterator[Row]:
        """Yield rows of a list of tokens and one of tags.

        A sentence of which some lines lack the tag has fewer tags than tokens.
        """
        self.layout, sentences = find_layout(read_conll(lines), self._columns.layout)
        for sentence in sentences:
            given = self.layout.tags(sentence)
            yield {tokens: self.layout.tokens(sentence)} | ({tags: given} if given else {})

    def _text_rows(self, path: Path, stream: io.TextIOWrapper) -> Iterator[Row]:
        column, required = self._columns.text, self._columns.required
        if [*required] != [column]:
            raise UserError(
                f"{path}: a .txt file has texts alone, no columns; give a .jsonl, .csv, .tsv or .parquet file with"
                f" the columns {', '.join(map(repr, required))}"
            )
        if not plain_text.has_text_per_line(path, self._lines):
            read = plain_text.read_paragraphs
        else:
            read = plain_text.read_first_pieces if self._every_line else plain_text.read_lines
        for text in read(stream, self._count_cut):
            yield {column: text.rstrip("\n")}

    def _count_cut(self) -> None:
        self.cut += 1

    def _checked(self, rows: Iterator[Row | None]) -> Iterator[Row | None]:
        return require_columns(rows, self._columns.required, source_name(self._source), self._patience)


def _column_rows(kind: str, path: Path, stream: io.TextIOWrapper, columns: WantedColumns) -> Iterator[Row | None]:
    if kind == ".conll":
        return _sentence_rows(_sentence_lines(path, stream))
    if kind == ".json":
        return read_json(path, stream, columns)
    lines = whole_lines(path, stream)
    if kind == ".jsonl":
        return read_json_lines(path, lines, columns)
    return read_delimited(path, lines, "\t" if kind == ".tsv" else ",", columns)


def _sentence_lines(path: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a CoNLL file; raise `UserError` for a sentence without end."""
    lines = chars = 0
    for number, line in enumerate(whole_lines(path, stream), 1):
        lines, chars = (lines + 1, chars + len(line)) if line.strip() else (0, 0)
        if lines > text_stream.MAX_RECORD_LINES or chars > text_stream.MAX_RECORD_CHARS:
            raise too_long(path, f"the sentence up to line {number}")
        yield line


def _sentence_rows(lines: Iterator[str]) -> Iterator[Row]:
    layout, sentences = find_layout(read_conll(lines), None)
    sample = list(itertools.islice(sentences, _SAMPLE_SENTENCES))
    characters = are_characters(map(layout.tokens, sample))
    for sentence in itertools.chain(sample, sentences):
        tokens = layout.tokens(sentence)
        yield {"text": join_tokens(tokens, characters=characters), "tokens": tokens}
