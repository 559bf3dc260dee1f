"""Open a file as a stream of characters, whatever its compression, encoding and damage.

Every text format is read through `open_text`, so compression, byte-order marks, line ends and unreadable bytes are
treated alike everywhere. The builders of HF `datasets` are not used for text, JSON and CSV, for two measured reasons:
they stop at an unreadable byte inside a .zst file, and at a JSON key that first appears late in a file.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jaxplm.data.sources.formats import split_suffix
from jaxplm.errors import UserError

# Stands for an unreadable byte between the decoder and `remove_unreadable`. It is a permanent noncharacter of Unicode:
# it has no meaning in a text, and unlike a lone surrogate it passes through json and csv.
UNREADABLE = "\ufdd0"

# A longer line, or a longer text in a file without blank lines, is cut to bound memory.
MAX_TEXT_CHARS = 1 << 24

# A longer line or record of a file with columns is refused: JSON may take thirty times the memory of its text.
MAX_RECORD_CHARS = 1 << 24
# Lines per record (a quoted field, a sentence of CoNLL), at most: each takes some hundred bytes.
MAX_RECORD_LINES = 1 << 20

_BUFFER_BYTES = 1 << 20
_PACKAGE = str(Path(__file__).parents[2])
# What a library never raises because of what a file holds. Such an error is a fault of the code.
_FAULTS = (TypeError, AttributeError, NameError, AssertionError, ImportError)


def _mark_unreadable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNREADABLE, error.end
    raise error


codecs.register_error("jaxplm.mark", _mark_unreadable)


def remove_unreadable(text: str) -> tuple[str, bool]:
    """Return the text without what no tokenizer takes, and whether there was any.

    That is unreadable bytes and lone surrogates (JSON's \\ud800).
    """
    if text.isascii():
        return text, False
    kept = text.replace(UNREADABLE, "")
    try:
        kept.encode()
    except UnicodeEncodeError:
        kept = kept.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return kept, kept != text


@contextlib.contextmanager
def errors_named(path: Path, place: Callable[[], str] = str) -> Iterator[None]:
    """Raise what is wrong with a file as a `UserError` that names the file.

    That is what the operating system, decompression, csv and Arrow say, and what any library raises while it reads:
    values nested too deeply, bytes that are no characters, numbers out of range. Errors that this package's own code
    raises are faults of the code and stay as they are.

    Args:
      path: the file.
      place: returns the place in the file, such as " after row 7"; "" where it is not known.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_about_data(error):
            raise
        said = "values nested too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read{place()}: {said[:300]}") from error


def _is_about_data(error: Exception) -> bool:
    """Return whether an error tells something about the data that were read."""
    if isinstance(error, (OSError, EOFError, zlib.error, csv.Error, MemoryError)):
        return True
    # Arrow's own errors, known by their module: importing Arrow here would slow down every start.
    if type(error).__module__.partition(".")[0] == "pyarrow":
        return True
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    raised_in = frame.tb_frame.f_code.co_filename if frame else ""
    return not isinstance(error, _FAULTS) and not raised_in.startswith(_PACKAGE)


def too_long(path: Path, what: str) -> UserError:
    """Return the error for a line or a record that is refused for its length."""
    return UserError(
        f"{path} {what} is longer than a record may be ({MAX_RECORD_CHARS:,} characters, {MAX_RECORD_LINES:,} lines); split it,"
        " or give plain text as .txt"
    )


def open_bytes(path: Path, raw: BinaryIO) -> BinaryIO:
    """Return the decompressed bytes of the file `path`, which is open as `raw`.

    A file may hold several compressed streams one after the other (pzstd, appended files). One that ends inside a
    stream is an `OSError` or an `EOFError`. The readers of `zstandard`, and so of fsspec, take such a .zst file for a
    complete one; Arrow's does not.
    """
    compression = split_suffix(path)[1]
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if compression == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(raw, "zstd")
    return raw


def open_text(path: Path, raw: BinaryIO) -> io.TextIOWrapper:
    """Return the characters of the file `path`, which is open as `raw`.

    The encoding is UTF-8, or UTF-16 where the file has that byte-order mark.

    An unreadable byte becomes `UNREADABLE`; every kind of line end becomes a newline.

    Raises:
      UserError: the file holds a pickle, or compressed or binary data that its name does not tell.
    """
    stream = io.BufferedReader(open_bytes(path, raw), _BUFFER_BYTES)  # type: ignore[arg-type]
    head = stream.peek(4)[:4]
    if re.match(rb"\x80[\x02-\x05]", head):
        raise UserError(f"{path} is refused: it holds a Python pickle, which can run code when it is opened")
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1")):
        raise UserError(f"{path} holds packed or binary data that its name does not tell; rename it or unpack it")
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="jaxplm.mark", newline=None)


def whole_lines(path: Path, stream: io.TextIOBase) -> Iterator[str]:
    """Yield the lines of a stream.

    Raises:
      UserError: a line of more than `MAX_RECORD_CHARS`, before it is read whole.
    """
    for number, line in enumerate(iter(functools.partial(stream.readline, MAX_RECORD_CHARS + 1), ""), 1):
        if len(line) > MAX_RECORD_CHARS:
            raise too_long(path, f"line {number}")
        yield line


def bounded_lines(stream: io.TextIOBase) -> Iterator[str]:
    """Yield the lines of a stream; one of more than `MAX_TEXT_CHARS` comes in pieces.

    Some corpora are one line.
    """
    return iter(functools.partial(stream.readline, MAX_TEXT_CHARS), "")
