"""A corpus as one stream of cleaned texts, whatever it is made of (see `specs`) and written in (see `rows`)."""

import contextlib
import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from jaxplm.config import Data
from jaxplm.data.sources import text_stream
from jaxplm.data.sources.builtin import BuiltinSource
from jaxplm.data.sources.columns import WantedColumns
from jaxplm.data.sources.formats import split_suffix
from jaxplm.data.sources.plain_text import has_text_per_line
from jaxplm.data.sources.rows import Source, SourceRows, source_name
from jaxplm.data.sources.same_files import file_digest
from jaxplm.data.sources.specs import find_sources
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

# Part of every fingerprint: raise it when the same files start to give other texts.
_READER_VERSION = 2

# Rows of a file without the wanted column that prove that it is not there.
_COLUMN_PATIENCE = 10_000


class Texts:
    """A corpus as a stream of texts that can be read again, in the same order each time.

    Memory does not grow with the corpus.

    Attributes:
      files: the local files, in the order in which they are read; empty for hub names and built-ins.
      describe: one line for the user.
      counts: filled by an iteration: `texts` yielded, `empty` (dropped), `undecodable` (texts in which unreadable bytes
        were skipped), `malformed` (rows that could not be parsed, dropped), `split` (cut for length), `repeated`
        (contexts of SQuAD). With `every_row` nothing is dropped (see `open_texts`).
    """

    def __init__(self, sources: list[Source], *, lines: str = "auto", text: str = "text", text_pair: str = "",
                 max_rows: int | None = None, every_row: bool = False, describe: str = "") -> None:
        self._sources = sources
        self._lines, self._max_rows, self._every_row = lines, max_rows, every_row
        self._columns = (text, text_pair) if text_pair else (text,)
        self.files: tuple[Path, ...] = tuple(source for source in sources if isinstance(source, Path))
        self.describe = describe
        self.counts: Counter[str] = Counter()
        self._announced = False
        self._finished_bytes = 0
        self._reading: SourceRows | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the content and of the reading options; names and places of files do not enter."""
        parts = [
            f"{split_suffix(source)}:{file_digest(source)}" if isinstance(source, Path) else source.fingerprint
            for source in self._sources
        ]
        options = [
            _READER_VERSION,
            self._lines,
            self._columns,
            self._max_rows,
            *(["every row"] if self._every_row else []),
        ]
        return hashlib.sha256(json.dumps([options, parts]).encode()).hexdigest()

    @property
    def has_columns(self) -> bool:
        """Whether any source is more than plain text."""
        return not all(_is_only_text(source) for source in self._sources)

    @property
    def total_bytes(self) -> int:
        """Size of the files as they are stored (compressed); 0 if it is not known."""
        return sum(path.stat().st_size for path in self.files) if len(self.files) == len(self._sources) else 0

    @property
    def position(self) -> int:
        """How many of `total_bytes` the current iteration has read."""
        return self._finished_bytes + (self._reading.position if self._reading else 0)

    @property
    def source(self) -> str:
        """What the user calls the source that the current iteration reads; "" where there is none."""
        return self._reading.name if self._reading else ""

    def __iter__(self) -> Iterator[str]:
        self.counts = counts = Counter()
        by_line = self._files_with_a_text_per_line()
        self._finished_bytes = 0
        for source in self._sources:
            with contextlib.closing(self._read(source, by_line)) as source_texts:
                for joined in source_texts:
                    text, had_unreadable = clean(joined)
                    if had_unreadable:
                        counts["undecodable"] += 1
                    if not text:
                        counts["empty"] += 1
                        if not self._every_row:
                            continue
                    counts["texts"] += 1
                    yield text
                    if counts["texts"] == self._max_rows:
                        break
            if counts["texts"] == self._max_rows:
                break
        self._finish()

    def _read(self, source: Source, by_line: set[Path]) -> Generator[str, None, None]:
        """Yield the texts of one source, not cleaned."""
        only_text = _is_only_text(source)
        fields = dict(zip(self._columns, ("data.text", "data.text_pair"), strict=False))
        required = {self._columns[0]: "data.text"} if only_text else fields
        rows = SourceRows(
            source,
            WantedColumns(required, text=self._columns[0]),
            lines="true" if source in by_line else "false",
            every_line=self._every_row,
            patience=_COLUMN_PATIENCE,
        )
        self._reading = rows
        try:
            if only_text:
                yield from (row[self._columns[0]] for row in rows if row)
            else:
                yield from self._join_columns(rows, source_name(source))
        finally:
            self._reading = None
            if rows.cut:
                self.counts["split"] += rows.cut
        if isinstance(source, Path):
            self._finished_bytes += source.stat().st_size

    def _join_columns(self, rows: SourceRows, where: str) -> Iterator[str]:
        previous = None
        for row in rows:
            if row is None:
                self.counts["malformed"] += 1
                if self._every_row:
                    yield ""
                continue
            values = [row.get(column) for column in self._columns]
            if values == previous and "answers" in row and not self._every_row:
                self.counts["repeated"] += 1  # SQuAD has one row per question; its context is one text
                continue
            previous = values
            yield _joined(values, self._columns, where)

    def _files_with_a_text_per_line(self) -> set[Path]:
        plain = [path for path in self.files if split_suffix(path)[0] == ".txt"]
        # For one result per row, a line is a row: a blank one is an empty text, and not the end of a paragraph.
        lines = "true" if self._every_row and self._lines == "auto" else self._lines
        by_line = {path for path in plain if has_text_per_line(path, lines)}
        if plain and self._lines == "auto" and not self._announced:
            self._announced = True
            by_paragraph = [path for path in plain if path not in by_line]
            reason = "every line is a row" if self._every_row else "hardly a blank line there"
            parts = [f"one text per line in {_names(sorted(by_line))} ({reason})"] if by_line else []
            parts += [f"texts separated by blank lines in {_names(by_paragraph)}"] if by_paragraph else []
            log.info("data.lines=auto: %s", "; ".join(parts))
        return by_line

    def _finish(self) -> None:
        """Log what was skipped; raise `UserError` if there was no text."""
        counts = self.counts
        # With every_row, an unreadable row is one of the texts.
        rows = counts["texts"] if self._every_row else counts["texts"] + counts["empty"] + counts["malformed"]
        readable = counts["texts"] - (counts["malformed"] if self._every_row else 0)
        if not readable:
            detail = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "texts")
            raise UserError(f"{self.describe}: no text found" + (f" ({detail})" if detail else ""))
        if counts["undecodable"]:
            hint = "; is it really UTF-8? (iconv converts others)" if counts["undecodable"] > 0.1 * rows else ""
            log.warning(
                "%s: unreadable bytes skipped in %d of %d texts%s", self.describe, counts["undecodable"], rows, hint
            )
        if counts["malformed"]:
            outcome = "taken as empty texts" if self._every_row else "left out"
            log.warning("%s: %d of %d rows could not be parsed, %s", self.describe, counts["malformed"], rows, outcome)
        if counts["split"]:
            log.warning("%s: texts over %d characters cut at a line end, %d times (data.lines=true: one text per line)",
                        self.describe, text_stream.MAX_TEXT_CHARS, counts["split"])


def _joined(values: list, columns: tuple[str, ...], where: str) -> str:
    for value, column in zip(values, columns, strict=True):
        if isinstance(value, (list, dict)):
            raise UserError(f"{where}: column {column!r} holds {type(value).__name__}s, not texts (set data.text)")
    # NaN is how pandas writes an empty cell into JSON.
    return "\n".join(_as_text(value) for value in values if value is not None and value == value)


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "jaxplm.mark") if isinstance(value, bytes) else str(value)


def clean(text: str) -> tuple[str, bool]:
    """Return a text as a tokenizer takes it, stripped, and whether unreadable parts were removed."""
    text, had_unreadable = text_stream.remove_unreadable(text)
    return text.strip(), had_unreadable


def _is_only_text(source: Source) -> bool:
    return isinstance(source, BuiltinSource) or (isinstance(source, Path) and split_suffix(source)[0] == ".txt")


def _names(paths: list[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def open_corpus(
    data: Data, spec: str, *, split: str = "train", max_rows: int | None = None, every_row: bool = False,
    part_of: str = ""
) -> Texts:
    """Open a corpus with the columns and the reading of lines that a config gives; see `open_texts`.

    Args:
      part_of: the corpus that `spec` is an entry of, if it is opened entry by entry.

    Raises:
      UserError: as `open_texts`; or `data.text_pair` names a column, and no source has columns. Texts for comparison
        (`data.general`) may be without them.
    """
    def opened(spec: str) -> Texts:
        return open_texts(spec, lines=data.lines, text=data.text, text_pair=data.text_pair, max_rows=max_rows,
                          split=split, every_row=every_row)

    texts = opened(spec)
    if data.text_pair and spec != data.general and not (texts.has_columns or part_of and opened(part_of).has_columns):
        raise UserError(f"data.text_pair={data.text_pair!r}: {texts.describe} is plain text, which has no columns: leave"
                        " data.text_pair empty, or give a file with columns (.jsonl, .json, .csv, .tsv, .parquet)")
    return texts


def open_texts(spec: str, *, lines: str = "auto", text: str = "text", text_pair: str = "", max_rows: int | None = None,
               split: str = "train", every_row: bool = False) -> Texts:
    """Open a corpus.

    Args:
      spec: a path, a glob, a directory, `hf:<name>`, `builtin:<name>`, or several separated by commas.
      lines: of .txt files only. `"true"`: one text per line. `"false"`: texts separated by blank lines. `"auto"`: one
        text per line in files with hardly a blank line between lines, and with `every_row`; the choice is logged.
      text: the column that holds the text (`.jsonl .json .csv .tsv .parquet`, hub).
      text_pair: a second column, joined to the first by a newline.
      max_rows: texts after which to stop.
      split: the split of hub names and built-ins: `"train"`, `"validation"` or `"test"`.
      every_row: text i is that of row i, or of line i. Empty texts are kept, and repeated contexts of SQuAD; a row that
        cannot be parsed is an empty text.

    Raises:
      UserError: here or while iterating: something is missing, unreadable or empty.
    """
    if str(lines).lower() not in ("auto", "true", "false"):
        raise UserError(f"data.lines={lines!r}: must be 'auto', 'true' or 'false'")
    if max_rows is not None and max_rows <= 0:
        raise UserError(f"data.max_rows={max_rows}: must be positive")
    sources = find_sources(spec, split)
    if len(sources) == 1:
        describe = spec
    else:
        describe = f"{spec} ({len(sources)} sources)" if len(spec) < 60 else f"{len(sources)} sources"
    return Texts(
        sources,
        lines=str(lines).lower(),
        text=text,
        text_pair=text_pair,
        max_rows=max_rows,
        every_row=every_row,
        describe=describe,
    )
