"""Texts of a .txt file: one per line, or separated by blank lines."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxplm.data.sources import text_stream
from jaxplm.data.sources.text_stream import bounded_lines, errors_named, open_text

# A file is one text per line where fewer blank lines than one in so many lines of text stand between texts: an empty text,
# or the end of a part. Paragraphs and documents are shorter.
_LINES_PER_BLANK = 100
# Lines by which the rest of a file is judged.
_JUDGED_LINES = 1 << 20


def has_text_per_line(path: Path, lines: str) -> bool:
    """Return whether each line of a .txt file is a text by itself.

    Args:
      path: the file; it is read only for `"auto"`.
      lines: `data.lines`: `"true"`, `"false"`, or `"auto"`, which is true for a file with hardly a blank line between
        lines of text.
    """
    if lines != "auto":
        return lines == "true"
    with errors_named(path), path.open("rb") as raw, open_text(path, raw) as stream:
        texts, gaps = count_gaps(stream)
        return gaps * _LINES_PER_BLANK < texts


def count_gaps(stream: io.TextIOBase) -> tuple[int, int]:
    """Return how many lines of text there are, and how many gaps of blank lines (empty or white space) between them.

    The first million lines are counted.
    """
    texts = gaps = 0
    after_blank = False
    for line in itertools.islice(bounded_lines(stream), _JUDGED_LINES):
        if not line.strip():
            after_blank = texts > 0
            continue
        texts += 1
        gaps += after_blank
        after_blank = False
    return texts, gaps


def read_lines(stream: io.TextIOBase, on_cut: Callable[[], None]) -> Iterator[str]:
    """Yield one text per line; a line over the length limit comes in pieces, with a call of `on_cut` for each cut."""
    for line in bounded_lines(stream):
        if _is_cut(line):
            on_cut()
        yield line


def read_first_pieces(stream: io.TextIOBase, on_cut: Callable[[], None]) -> Iterator[str]:
    """Yield exactly one text per line: of a line over the length limit only the beginning."""
    continued = False
    for line in read_lines(stream, on_cut):
        if not continued:
            yield line
        continued = _is_cut(line)


def _is_cut(line: str) -> bool:
    return len(line) == text_stream.MAX_TEXT_CHARS and line[-1] != "\n"


def read_paragraphs(stream: io.TextIOBase, on_cut: Callable[[], None]) -> Iterator[str]:
    """Yield the texts between blank lines; the lines of one text stay joined by newlines.

    A text over the length limit is cut at a line end, with a call of `on_cut`.
    """
    lines: list[str] = []
    size = 0
    for line in bounded_lines(stream):
        if line.strip():
            if lines and size + len(line) > text_stream.MAX_TEXT_CHARS:
                on_cut()
                yield "".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        elif lines:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)
