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
      UserError: a required column is not there, or a class has no name.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        present = columns.present(file.schema_arrow.names, path)
        classes = {column: names for column, names in names_in_metadata(file.schema_arrow.metadata).items() if column in present}
        rows_before = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_batch_rows(file, group), row_groups=[group], columns=present):
                try:
                    rows = batch.to_pylist()
                except Exception:  # noqa: BLE001 whatever it is comes again, with its row
                    rows = _one_by_one(path, batch, rows_before)
                for row in rows:
                    yield row | {column: named(row[column], names, column, path) for column, names in classes.items()}
                rows_before += len(batch)


def _one_by_one(path: Path, batch: Any, rows_before: int) -> Iterator[Row]:
    """Yield the rows of a batch; an error names the row."""
    for index in range(len(batch)):
        with errors_named(path, lambda row=rows_before + index + 1: f" in row {row}"):
            [row] = batch.slice(index, 1).to_pylist()
        yield row


def _batch_rows(file: Any, group: int) -> int:
    """Return how many rows of a row group are read at once, so that long texts take no more memory than short ones.

    The size is that of all columns: what the file says of one column ends the process where it is damaged.
    """
    about = file.metadata.row_group(group)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)))
