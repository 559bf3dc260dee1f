"""Open a file as a stream of characters, whatever its compression, encoding and damage.

Every text format is read through `open_text`, so compression, byte-order marks, line ends and unreadable bytes are
treated alike everywhere. The builders of HF `datasets` are not used for text, JSON and CSV, for two measured reasons:
they stop at an unreadable byte inside a .zst file, and at a JSON key that first appears late in a file.
"""

import codecs
import contextlib
import functools
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxplm.data.sources.formats import split_suffix
from jaxplm.errors import UserError

# Stands for an unreadable byte between the decoder and `remove_unreadable`. It is a permanent noncharacter of Unicode:
# it has no meaning in a text, and unlike a lone surrogate it passes through json and csv.
UNREADABLE = "\ufdd0"

# A longer line, or a longer text in a file without blank lines, is cut to bound memory.
MAX_TEXT_CHARS = 1 << 24

_BUFFER_BYTES = 1 << 20


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
def errors_named(path: Path) -> Iterator[None]:
    """Raise what goes wrong inside a file (no permission, damaged compression) as a `UserError` that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        # Arrow's own errors, known by their module: importing Arrow here would slow down every start.
        if type(error).__module__.partition(".")[0] == "pyarrow":
            raise UserError(f"{path} cannot be read: {error}") from error
        raise


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


def bounded_lines(stream: io.TextIOBase) -> Iterator[str]:
    """Yield the lines of a stream; one of more than `MAX_TEXT_CHARS` comes in pieces.

    Some corpora are one line.
    """
    return iter(functools.partial(stream.readline, MAX_TEXT_CHARS), "")
