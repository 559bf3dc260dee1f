"""Rows of Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.data.sources.class_names import named, names_in_metadata
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.data.sources.text_stream import MAX_RECORD_LINES, errors_named
from jaxplm.errors import UserError

_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 26
_MAX_DEPTH = 32  # of lists and structures in each other; SQuAD's own nesting is 8
# Values of one nested column in a row group, at most: a million rows of 128 tokens. One row may hold all of them, and a file of a
# kilobyte may say that it does.
_MAX_GROUP_VALUES = 1 << 27


def read_parquet(path: Path, columns: WantedColumns) -> Iterator[Row]:
    """Yield the rows of a Parquet file with the wanted columns alone, a small batch in memory at a time.

    Numbered classes are given by their names, where the file's metadata have them.

    Raises:
      UserError: a required column is not there, a class has no name, or a row cannot be read or holds too much.
    """
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    present = columns.present(schema.names, path)
    classes = {column: names for column, names in names_in_metadata(schema.metadata).items() if column in present}
    texts = [name for name in present if _is_text(schema.field(name).type)]
    nested = [name for name in present if _depth(schema.field(name).type)]
    for name in nested:
        if (depth := _depth(schema.field(name).type)) > _MAX_DEPTH:
            raise UserError(f"{path}: column {name!r} holds values nested {depth} deep, of which {_MAX_DEPTH} at most are read")
    with pyarrow.parquet.ParquetFile(path) as file, pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as coded:
        rows_before = 0
        for group in range(file.num_row_groups):
            size = min(_batch_rows(coded, group, texts), _batch_rows_of_values(path, file.metadata, group, nested))
            for batch in file.iter_batches(size, row_groups=[group], columns=present):
                if _is_large(batch, nested):
                    rows = _one_by_one(path, batch, rows_before, nested)
                else:
                    try:
                        rows = batch.to_pylist()
                    except Exception:  # noqa: BLE001 whatever it is comes again, with its row
                        rows = _one_by_one(path, batch, rows_before)
                for row in rows:
                    yield row | {column: named(row[column], names, column, path) for column, names in classes.items()}
                rows_before += len(batch)


def _batch_rows(coded: Any, group: int, texts: list[str]) -> int:
    """Return how many rows of a row group are read at once, so that long texts take no more memory than short ones.

    The size of the group counts all columns: what a damaged file says of one column ends the process. It counts a text
    that stands in many rows once, so the longest one of those counts too.

    Args:
      coded: the file, whose columns of texts are read as dictionaries.
      group: number of the row group.
      texts: the columns of texts.
    """
    about = coded.metadata.row_group(group)
    rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)))
    if about.total_byte_size * rows > _BATCH_BYTES and texts:
        batch = next(coded.iter_batches(1, row_groups=[group], columns=texts), None)
        rows = min([rows, *(max(1, _BATCH_BYTES // _longest(column)) for column in (batch.columns if batch else ()))])
    return rows


def _longest(column: Any) -> int:
    """Return the bytes of the longest text in the dictionary of a column, at least 1."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made when it is imported: a type checker does not know them
    return max(compute.max(compute.binary_length(column.dictionary)).as_py() or 0, 1)


def _is_text(kind: Any) -> bool:
    """Return whether a column holds texts, as such or as a dictionary."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary))


def _batch_rows_of_values(path: Path, about: Any, group: int, nested: list[str]) -> int:
    """Return how many rows of a row group are read at once, so that a batch holds about as many values as one row may.

    Args:
      path: of the file, for the message.
      about: the file's metadata.
      group: number of the row group.
      nested: the columns of lists and structures.

    Raises:
      UserError: one of them holds more values than a row group may.
    """
    group_about = about.row_group(group)
    most = 1
    for leaf in map(group_about.column, range(group_about.num_columns)):
        name = leaf.path_in_schema.partition(".")[0]
        if name in nested:
            if leaf.num_values > _MAX_GROUP_VALUES:
                raise UserError(f"{path}: row group {group + 1} holds {leaf.num_values:,} values of column {name!r}, of which"
                                f" {_MAX_GROUP_VALUES:,} at most are read; write the file with smaller row groups")
            most = max(most, leaf.num_values)
    return max(1, MAX_RECORD_LINES * group_about.num_rows // most)


def _depth(kind: Any) -> int:
    """Return how many lists and structures of a type are in each other; 0 for a plain value."""
    depth, level = 0, [kind]
    while level := [one.field(i).type for one in level for i in range(one.num_fields)]:
        depth += 1
    return depth


def _is_large(rows: Any, nested: list[str]) -> bool:
    """Return whether the nested columns of a batch hold more than those of one row may."""
    columns = [rows.column(name) for name in nested]
    return sum(map(_count, columns)) > MAX_RECORD_LINES or sum(column.nbytes for column in columns) > _BATCH_BYTES


def _count(values: Any) -> int:
    """Return how many values an array holds, those of its lists and structures included."""
    import pyarrow as pa

    if pa.types.is_map(values.type):  # cannot be flattened as it is
        values = pa.ListArray.from_arrays(values.offsets, pa.StructArray.from_arrays([values.keys, values.items], ["key", "value"]))
    if pa.types.is_struct(values.type):
        return len(values) + sum(map(_count, values.flatten()))
    return len(values) + (_count(values.flatten()) if values.type.num_fields else 0)


def _one_by_one(path: Path, batch: Any, rows_before: int, nested: list[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a batch; an error names the row. One whose `nested` columns hold too much is refused."""
    for index in range(len(batch)):
        one = batch.slice(index, 1)
        if nested and _is_large(one, nested):
            raise UserError(f"{path}: row {rows_before + index + 1} holds more values than a row may ({MAX_RECORD_LINES:,} values,"
                            f" {_BATCH_BYTES:,} bytes in {', '.join(nested)}); split it")
        with errors_named(path, lambda row=rows_before + index + 1: f" in row {row}"):
            [row] = one.to_pylist()
        yield row
