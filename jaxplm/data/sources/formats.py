"""Rows and texts of one file: .txt .jsonl .json .csv .tsv .parquet .conll, plain, .gz or .zst.

One byte layer serves every text format, so that compression, byte-order marks, line ends and unreadable
bytes behave the same everywhere. The readers stream: memory does not grow with the file (only SQuAD, one
nested object, is read whole). HF `datasets` reads parquet, and hub names (see `hub`). Its text and JSON
builders are not used, for two measured reasons: they stop at an unreadable byte inside a .zst file, and at a
key that first appears late in a file.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from jaxplm.data.sources.json_rows import Row, missing_column, read_json, read_json_lines
from jaxplm.errors import UserError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".conll")
COMPRESSIONS = (".gz", ".zst")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".ckpt")

# Stands for an unreadable byte between the decoder and `Texts`, which counts and removes it. A permanent
# noncharacter of Unicode: it has no meaning in a text, and unlike a lone surrogate it survives json and csv.
UNREADABLE = "\ufdd0"

# A longer text (a file without blank lines read by blank lines) is cut at a line end, to bound memory.
MAX_TEXT_CHARS = 1 << 24

# So many rows without the wanted column prove that it is not there; do not read 10 GB to say so.
_COLUMN_PATIENCE = 10_000

# What tells a line of the token `#` from a comment.
_TAG = re.compile(r"O|[BIESLU]-\S+")


def _mark_unreadable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNREADABLE, error.end
    raise error


codecs.register_error("jaxplm.mark", _mark_unreadable)


def repaired(text: str) -> tuple[str, bool]:
    """The text without what no tokenizer takes, unreadable bytes and lone surrogates (JSON's \\ud800); whether there was any."""
    if text.isascii():
        return text, False
    whole = text.replace(UNREADABLE, "")
    try:
        whole.encode()
    except UnicodeEncodeError:
        whole = whole.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return whole, whole != text


def split_suffix(path: Path) -> tuple[str, str]:
    """`("…/a.JSONL.gz")` → `(".jsonl", ".gz")`: the format and the compression that a name tells."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        return (suffixes[-2] if len(suffixes) > 1 else "", suffixes[-1])
    return (suffixes[-1] if suffixes else "", "")


def check_format(path: Path) -> str:
    """The format of a path, e.g. `".jsonl"`; `UserError` for a pickle or an unknown ending."""
    kind, compression = split_suffix(path)
    if kind in PICKLES:
        raise UserError(
            f"{path} is refused: {kind} files can run code when they are opened; "
            "save the texts as .jsonl or .parquet"
        )
    if kind not in FORMATS:
        raise UserError(
            f"{path}: the format cannot be told from its name; known: {' '.join(FORMATS)}, "
            f"plain or {' '.join(COMPRESSIONS)}"
        )
    if kind == ".parquet" and compression:
        raise UserError(f"{path}: parquet is compressed inside; unpack the {compression} around it")
    return kind


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong inside a file (no permission, damaged packing) into a `UserError` naming it."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        # The errors of the lazily imported decoders, told by their home so as not to import them here.
        if type(error).__module__.partition(".")[0] in ("zstandard", "pyarrow"):
            raise UserError(f"{path} cannot be read: {error}") from error
        raise


def open_bytes(path: Path, raw: BinaryIO) -> BinaryIO:
    """The unpacked bytes of the file `path` that is open as `raw`."""
    compression = split_suffix(path)[1]
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if compression == ".zst":
        import zstandard

        # A .zst may hold many frames (pzstd, appended files); the default stops after the first.
        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return raw


def open_text(path: Path, raw: BinaryIO) -> io.TextIOWrapper:
    """The characters of a file, unreadable bytes as `UNREADABLE`: UTF-8, or UTF-16 by its byte-order mark."""
    stream = io.BufferedReader(open_bytes(path, raw), 1 << 20)  # type: ignore[arg-type]
    head = stream.peek(4)[:4]
    if re.match(rb"\x80[\x02-\x05]", head):
        raise UserError(f"{path} is refused: it holds a Python pickle, which can run code when it is opened")
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1")):
        raise UserError(
            f"{path} holds packed or binary data that its name does not tell; rename it or unpack it"
        )
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="jaxplm.mark", newline=None)


def has_blank_line(stream: io.TextIOBase) -> bool:
    """True if a blank (empty or whitespace-only) line stands between two lines with text."""
    text_before = blank_between = False
    for line in _bounded_lines(stream):
        if not line.strip():
            blank_between = text_before
        elif blank_between:
            return True
        else:
            text_before = True
    return False


def _bounded_lines(stream: io.TextIOBase) -> Iterator[str]:
    """The lines of a stream, those over `MAX_TEXT_CHARS` in pieces (some corpora are one line)."""
    return iter(functools.partial(stream.readline, MAX_TEXT_CHARS), "")


def read_lines(stream: io.TextIOBase, counts: Counter[str]) -> Iterator[str]:
    """One text a line."""
    for line in _bounded_lines(stream):
        if len(line) == MAX_TEXT_CHARS and line[-1] != "\n":
            counts["split"] += 1
        yield line


def read_paragraphs(stream: io.TextIOBase, counts: Counter[str]) -> Iterator[str]:
    """Texts separated by blank lines; the lines of one text stay joined by a newline."""
    parts: list[str] = []
    size = 0
    for line in _bounded_lines(stream):
        if line.strip():
            if size + len(line) > MAX_TEXT_CHARS and parts:
                counts["split"] += 1
                yield "".join(parts)
                parts, size = [], 0
            parts.append(line)
            size += len(line)
        elif parts:
            yield "".join(parts)
            parts, size = [], 0
    if parts:
        yield "".join(parts)


def read_conll(lines: Iterator[str]) -> Iterator[list[list[str]]]:
    """Sentences of a CoNLL file as lists of columns; columns split at tabs, in files without tabs at spaces.

    `-DOCSTART-` and comment lines (`# …`, `## …`) are left out. A token may be a space (sets of characters), and
    it may be `#`: such a line has as many columns as the one before it, the last of which is a tag.
    """
    sentence: list[list[str]] = []
    width = 0
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if sentence:
                yield sentence
                sentence = []
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if line.startswith("-DOCSTART-"):
            continue
        if line.startswith(("# ", "## ")) and not (len(columns) == width > 1 and _TAG.fullmatch(columns[-1])):
            continue
        width = len(columns)
        sentence.append(columns)
    if sentence:
        yield sentence


def join_tokens(tokens: list[str]) -> str:
    """The text of a token list: one space between tokens, none where spaces are tokens themselves."""
    return ("" if any(token.isspace() or not token for token in tokens) else " ").join(tokens)


def read_delimited(path: Path, lines: Iterator[str], delimiter: str, counts: Counter[str]) -> Iterator[Row]:
    """Rows of a .csv or .tsv file with a header row; rows of another width are counted as `malformed`.

    Quotes quote in .csv only: .tsv has no quoting (IANA text/tab-separated-values), and review corpora are
    full of single `"` that would swallow the rows after them.
    """
    csv.field_size_limit(MAX_TEXT_CHARS)
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            return
        for row in reader:
            if len(row) == len(header):
                yield dict(zip(header, row, strict=True))
            elif row:
                counts["malformed"] += 1
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: {error}") from error


def read_parquet(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = (), fields: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Row]:
    """Rows of a parquet file, only the named columns, in small batches; see `read_all_rows`."""
    import pyarrow.parquet

    from jaxplm.data.sources.hub import quiet_datasets

    names = pyarrow.parquet.read_schema(path).names
    for column in columns:
        if column not in names:
            raise missing_column(path, column, names, fields.get(column, "data.text"))
    columns = (*columns, *(column for column in optional if column in names and column not in columns))
    stream = quiet_datasets().load_dataset(
        "parquet",
        data_files=[str(path)],
        split="train",
        streaming=True,
        columns=list(columns),
        batch_size=1024,
    )
    for table in stream.with_format("arrow").iter(batch_size=1024):
        yield from table.to_pylist()


def read_rows(path: Path, raw: BinaryIO, columns: tuple[str, ...], counts: Counter[str], *, keep_malformed: bool = False) -> Iterator[Row]:
    """Rows of a file with columns (all formats but .txt), each with at least one of `columns`.

    A row may lack a column (ragged JSON); a column that no row has is a `UserError` naming those that exist.
    CoNLL rows have the columns `text` and `tokens`. With `keep_malformed` an unreadable row is one without columns.
    """
    rows = read_all_rows(path, raw, columns, counts)
    return _require_columns(path, _with_malformed(rows, counts) if keep_malformed else rows, columns)


def _with_malformed(rows: Iterator[Row], counts: Counter[str]) -> Iterator[Row]:
    """An empty row in the place of each unreadable one."""
    before = counts["malformed"]
    for row in itertools.chain(rows, [None]):
        for _ in range(counts["malformed"] - before):
            yield {}
        before = counts["malformed"]
        if row is not None:
            yield row


def read_all_rows(
    path: Path, raw: BinaryIO, columns: tuple[str, ...], counts: Counter[str], optional: tuple[str, ...] = (),
    fields: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Row]:
    """The same rows as they come, whatever columns they have: none is held back to look for a column.

    After each row `counts["malformed"]` holds the number of unreadable rows before it. Parquet files are read only
    for `columns`, which they must have, and for `optional` ones; `fields` says which field chooses a column.
    """
    kind = check_format(path)
    if kind == ".parquet":
        yield from read_parquet(path, columns, optional, fields)
        return
    with open_text(path, raw) as stream:
        if kind == ".conll":
            for sentence in read_conll(stream):
                tokens = [line[0] for line in sentence]
                yield {"text": join_tokens(tokens), "tokens": tokens}
        elif kind == ".json":
            yield from read_json(path, stream, counts)
        elif kind == ".jsonl":
            yield from read_json_lines(stream, counts)
        else:
            yield from read_delimited(path, stream, "\t" if kind == ".tsv" else ",", counts)


def _require_columns(path: Path, rows: Iterator[Row], columns: tuple[str, ...]) -> Iterator[Row]:
    unseen = set(columns)
    names: dict[str, None] = {}
    held: list[Row] = []
    for row in rows:
        if unseen:
            unseen -= row.keys()
            names.update(dict.fromkeys(row))
            held.append(row)
            if unseen and len(held) < _COLUMN_PATIENCE:
                continue
            if unseen:
                break
            yield from held
            held = []
        else:
            yield row
    if unseen and held:
        raise missing_column(path, min(unseen, key=columns.index), list(names))
