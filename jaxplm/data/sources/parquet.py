"""Rows of Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.data.sources.columns import Row, WantedColumns

_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 26


def read_parquet(path: Path, columns: WantedColumns) -> Iterator[Row]:
    """Yield the rows of a Parquet file with the wanted columns alone, a small batch in memory at a time.

    Raises:
      UserError: a required column is not there.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        present = columns.present(file.schema_arrow.names, path)
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_batch_rows(file, group, present), row_groups=[group], columns=present):
                yield from batch.to_pylist()


def _batch_rows(file: Any, group: int, columns: list[str]) -> int:
    """Return how many rows of a row group are read at once, so that long texts take no more memory than short ones."""
    about = file.metadata.row_group(group)
    parts = map(about.column, range(about.num_columns))
    size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(size, 1)))
