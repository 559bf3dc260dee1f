"""A corpus as one stream of texts, whatever it is made of (see `specs`) and written in (see `formats`)."""

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxplm.config import Data
from jaxplm.data.sources import builtin, formats
from jaxplm.data.sources.hub import HubSource
from jaxplm.data.sources.specs import Source, digest, resolve, same_files
from jaxplm.errors import UserError

__all__ = ["Texts", "open_corpus", "open_texts", "same_files"]

log = logging.getLogger("jaxplm")

# Part of every fingerprint: raise it when the same files start to give other texts.
_READER_VERSION = 1


class Texts:
    """A corpus as a re-iterable stream of texts, read anew in the same order each time; memory stays flat.

    Attributes:
      files: the local files, in reading order (empty for hub names and built-ins).
      describe: one line for the user.
      counts: filled by an iteration: `texts` yielded, `empty` (dropped), `undecodable` (texts in which
        unreadable bytes were skipped), `malformed` (rows that could not be parsed, dropped), `split` (cut
        for length), `repeated` (contexts of SQuAD). With `every_row` nothing is dropped (see `open_texts`).
    """

    def __init__(
        self,
        sources: list[Source],
        *,
        lines: str = "auto",
        text: str = "text",
        text_pair: str = "",
        max_rows: int | None = None,
        every_row: bool = False,
        describe: str = "",
    ) -> None:
        self._sources = sources
        self._lines, self._max_rows, self._every_row = lines, max_rows, every_row
        self._columns = (text, text_pair) if text_pair else (text,)
        self.files: tuple[Path, ...] = tuple(s for s in sources if isinstance(s, Path))
        self.describe = describe
        self.counts: Counter[str] = Counter()
        self._announced = False
        self._finished_bytes = 0
        self._position: Callable[[], int] = lambda: 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the content and of the reading options; the files' names and places do not enter."""
        parts = [
            f"{formats.split_suffix(s)}:{digest(s)}" if isinstance(s, Path) else s.fingerprint
            for s in self._sources
        ]
        options = [_READER_VERSION, self._lines, self._columns, self._max_rows, *(["every row"] if self._every_row else [])]
        return hashlib.sha256(json.dumps([options, parts]).encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of the files as they lie (packed); 0 if it is not known."""
        return sum(path.stat().st_size for path in self.files) if len(self.files) == len(self._sources) else 0

    @property
    def position(self) -> int:
        """How many of `total_bytes` the current iteration has read."""
        return self._finished_bytes + self._position()

    def __iter__(self) -> Iterator[str]:
        self.counts = Counter()
        by_line = self._decide_lines()
        self._finished_bytes = 0
        for source in self._sources:
            for value in self._read(source, by_line):
                text = self._clean(value)
                if not text:
                    self.counts["empty"] += 1
                    if not self._every_row:
                        continue
                self.counts["texts"] += 1
                yield text
                if self._max_rows is not None and self.counts["texts"] >= self._max_rows:
                    return self._finish()
        self._finish()

    def _read(self, source: Source, by_line: set[Path]) -> Iterator[str]:
        if isinstance(source, builtin.BuiltinSource):
            yield from source.texts()
        elif isinstance(source, HubSource):
            yield from self._join_columns(source.rows(self._columns))
        else:
            yield from self._read_file(source, by_line)

    def _read_file(self, path: Path, by_line: set[Path]) -> Iterator[str]:
        with formats.readable(path), path.open("rb") as raw:
            self._position = raw.tell
            try:
                if formats.check_format(path) != ".txt":
                    rows = formats.read_rows(path, raw, self._columns, self.counts, keep_malformed=self._every_row)
                    yield from self._join_columns(rows)
                else:
                    read = formats.read_lines if path in by_line else formats.read_paragraphs
                    with formats.open_text(path, raw) as stream:
                        pieces = read(stream, self.counts)
                        yield from _whole_lines(pieces) if self._every_row and path in by_line else pieces
            finally:
                self._position = lambda: 0
        self._finished_bytes += path.stat().st_size

    def _join_columns(self, rows: Iterator[formats.Row]) -> Iterator[str]:
        previous = None
        for row in rows:
            values = [row.get(column) for column in self._columns]
            if values == previous and "answers" in row and not self._every_row:
                self.counts["repeated"] += 1  # SQuAD has a row a question; its context is one text
                continue
            previous = values
            for value, column in zip(values, self._columns, strict=True):
                if isinstance(value, (list, dict)):
                    raise UserError(
                        f"column {column!r} holds {type(value).__name__}s, not texts (set data.text)"
                    )
            yield "\n".join(str(value) for value in values if value is not None)

    def _clean(self, text: str) -> str:
        text, damaged = clean(text)
        if damaged:
            self.counts["undecodable"] += 1
        return text

    def _decide_lines(self) -> set[Path]:
        plain = [path for path in self.files if formats.split_suffix(path)[0] == ".txt"]
        if self._lines != "auto":
            return set(plain) if self._lines == "true" else set()
        by_line = {path for path in plain if not _has_blank_line(path)}
        if plain and not self._announced:
            self._announced = True
            rest = [path for path in plain if path not in by_line]
            said = [f"one text a line in {_names(sorted(by_line))} (no blank line there)"] if by_line else []
            said += [f"texts separated by blank lines in {_names(rest)}"] if rest else []
            log.info("data.lines=auto: %s", "; ".join(said))
        return by_line

    def _finish(self) -> None:
        counts = self.counts
        rows = counts["texts"] if self._every_row else counts["texts"] + counts["empty"] + counts["malformed"]
        if not counts["texts"]:
            detail = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
            raise UserError(f"{self.describe}: no text found" + (f" ({detail})" if detail else ""))
        if counts["undecodable"]:
            share = counts["undecodable"] / rows
            hint = "; is it really UTF-8? (iconv converts others)" if share > 0.1 else ""
            log.warning(
                "%s: unreadable bytes skipped in %d of %d texts%s",
                self.describe,
                counts["undecodable"],
                rows,
                hint,
            )
        if counts["malformed"]:
            fate = "taken as empty texts" if self._every_row else "left out"
            log.warning("%s: %d of %d rows could not be parsed, %s", self.describe, counts["malformed"], rows, fate)
        if counts["split"]:
            log.warning(
                "%s: texts over %d characters cut at a line end, %d times (data.lines=true: a text a line)",
                self.describe, formats.MAX_TEXT_CHARS, counts["split"],
            )  # fmt: skip


def clean(text: str) -> tuple[str, bool]:
    """A text as a tokenizer takes it, without white space at the ends, and whether unreadable parts were taken out."""
    text, damaged = formats.repaired(text)
    return text.strip(), damaged


def _whole_lines(pieces: Iterator[str]) -> Iterator[str]:
    """One text a line, even of a line that is read in pieces: the first stands for all."""
    continued = False
    for piece in pieces:
        if not continued:
            yield piece
        continued = len(piece) == formats.MAX_TEXT_CHARS and piece[-1] != "\n"


def _has_blank_line(path: Path) -> bool:
    with formats.readable(path), path.open("rb") as raw, formats.open_text(path, raw) as stream:
        return formats.has_blank_line(stream)


def _names(paths: list[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def open_corpus(data: Data, spec: str, *, split: str = "train", max_rows: int | None = None, every_row: bool = False) -> Texts:
    """`open_texts` with the columns and the way to read lines that a config gives."""
    return open_texts(spec, lines=data.lines, text=data.text, text_pair=data.text_pair, max_rows=max_rows, split=split, every_row=every_row)


def open_texts(
    spec: str,
    *,
    lines: str = "auto",
    text: str = "text",
    text_pair: str = "",
    max_rows: int | None = None,
    split: str = "train",
    every_row: bool = False,
) -> Texts:
    """Opens a corpus.

    Args:
      spec: a path, a glob, a directory, `hf:<name>`, `builtin:<name>`, or several separated by commas.
      lines: `.txt` only. `"true"`: one text a line. `"false"`: texts separated by blank lines. `"auto"`: a
        text a line in files without a blank line between lines; the choice is logged.
      text: the column that holds the text (`.jsonl .json .csv .tsv .parquet`, hub).
      text_pair: a second column, joined to the first by a newline.
      max_rows: stop after so many texts.
      split: the split of hub names and built-ins: `"train"`, `"validation"`, `"test"`.
      every_row: text i is that of row i, or of line i: empty texts are not dropped, nor repeated contexts of SQuAD,
        and a row that cannot be parsed is an empty text.

    Returns:
      `Texts`. What is missing, unreadable or empty is a `UserError`: here, or while iterating.
    """
    if str(lines).lower() not in ("auto", "true", "false"):
        raise UserError(f"data.lines={lines!r}: must be 'auto', 'true' or 'false'")
    if max_rows is not None and max_rows <= 0:
        raise UserError(f"data.max_rows={max_rows}: must be positive")
    sources = resolve(spec, split)
    if len(sources) > 1:
        describe = f"{spec} ({len(sources)} sources)" if len(spec) < 60 else f"{len(sources)} sources"
    else:
        describe = spec
    return Texts(
        sources,
        lines=str(lines).lower(),
        text=text,
        text_pair=text_pair,
        max_rows=max_rows,
        every_row=every_row,
        describe=describe,
    )
