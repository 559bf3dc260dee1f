"""Rows of Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.data.sources.class_names import named, names_in_metadata
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.data.sources.text_stream import errors_named

_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 26


def read_parquet(path: Path, columns: WantedColumns) -> Iterator[Row]:
    """Yield the rows of a Parquet file with the wanted columns alone, a small batch in memory at a time.

    Numbered classes are given by their names, where the file's metadata have them.

    Raises:
      UserError: a required column is not there, a class has no name, or a row cannot be read.
    """
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(path)
    present = columns.present(schema.names, path)
    classes = {column: names for column, names in names_in_metadata(schema.metadata).items() if column in present}
    texts = [name for name in present if _is_text(schema.field(name).type)]
    with pyarrow.parquet.ParquetFile(path) as file, pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as coded:
        rows_before = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_batch_rows(coded, group, texts), row_groups=[group], columns=present):
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


def _one_by_one(path: Path, batch: Any, rows_before: int) -> Iterator[Row]:
    """Yield the rows of a batch; an error names the row."""
    for index in range(len(batch)):
        with errors_named(path, lambda row=rows_before + index + 1: f" in row {row}"):
            [row] = batch.slice(index, 1).to_pylist()
        yield row
