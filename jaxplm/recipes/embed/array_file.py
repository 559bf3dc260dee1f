"""A .npy file that grows row by row and appears under its name when it is complete."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The header of a .npy file. NumPy leaves room in it for the first dimension to grow: its size stays the same."""
    buffer = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


class ArrayFile:
    """Rows of one shape and type.

    Args:
      path: of the complete file; until then it bears another name beside it.
      row_shape: of one row; () for an array of one dimension.
      keep: rows that an earlier `ArrayFile` of this path wrote and that stay; appended rows follow them. 0 starts an empty file.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype | type, keep: int = 0) -> None:
        self.path, self._row_shape, self._dtype = path, row_shape, np.dtype(dtype)
        self._partial = path.with_name(f"{path.name}.partial")
        if keep and path.exists() and not self._partial.exists():  # finished, but not what had to come after it
            path.replace(self._partial)
        header = _header((0, *row_shape), self._dtype)
        self._file = self._partial.open("r+b" if keep else "wb")
        self.rows = keep
        size = len(header) + keep * self._dtype.itemsize * int(np.prod(row_shape))
        if keep and self._file.seek(0, os.SEEK_END) < size:
            self._file.close()
            raise ValueError(f"{self._partial} holds less than {keep} rows")
        self._file.truncate(size)
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(size)

    def append(self, rows: np.ndarray) -> None:
        """rows: [n, *row_shape]"""
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of {rows.shape[1:]} in a file of {self._row_shape}")
        self._file.write(np.ascontiguousarray(rows, self._dtype).data.cast("B") if rows.size else b"")
        self.rows += len(rows)

    def flush(self) -> None:
        """Have everything so far on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> Path:
        """Give the file its name."""
        self._file.seek(0)
        self._file.write(_header((self.rows, *self._row_shape), self._dtype))
        self.flush()
        self._file.close()
        self._partial.replace(self.path)
        return self.path

    def close(self) -> None:
        """Leave the file as it is, incomplete."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
