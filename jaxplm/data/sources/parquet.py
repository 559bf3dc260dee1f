"""Rows of Parquet files."""

from collections.abc import Iterator
from pathlib import Path

from jaxplm.data.sources.columns import Row, WantedColumns

_BATCH_ROWS = 1024


def read_parquet(path: Path, columns: WantedColumns) -> Iterator[Row]:
    """Yield the rows of a Parquet file with the wanted columns alone, a small batch in memory at a time.

    Raises:
      UserError: a required column is not there.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        present = columns.present(file.schema_arrow.names, path)
        for batch in file.iter_batches(_BATCH_ROWS, columns=present):
            yield from batch.to_pylist()
