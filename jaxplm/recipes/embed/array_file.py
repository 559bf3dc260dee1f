"""Write a .npy file row by row; it appears under its name when it is complete."""

import io
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

_BLOCK = 1 << 24  # bytes


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the header of a .npy file.

    NumPy leaves room in it for the first dimension to grow, so its size stays the same.
    """
    buffer = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def crc_of_rows(path: Path, rows: int, dtype: np.dtype | type) -> int:
    """Return CRC-32 of the first rows of a file of one dimension, complete or not.

    Raises:
      OSError: it cannot be read.
    """
    left, total = rows * np.dtype(dtype).itemsize, 0
    with path.open("rb") as file:
        file.seek(len(_header((0,), np.dtype(dtype))))
        while left and (block := file.read(min(left, _BLOCK))):
            total, left = zlib.crc32(block, total), left - len(block)
    return -1 if left else total


class ArrayFile:
    """A growing array of rows of one shape and type.

    Attributes:
      rows: how many.
      crc: CRC-32 of all rows, as `crc_of_rows` gives it for an array of one dimension.

    Args:
      path: of the complete file; until then the file has another name beside it.
      row_shape: of one row; () for an array of one dimension.
      dtype: of the values.
      keep: rows to keep that an earlier `ArrayFile` of this path wrote; new ones come after them. 0 starts from the
        beginning.

    Raises:
      ValueError: the file holds fewer rows than `keep`.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: np.dtype | type, keep: int = 0) -> None:
        self.path, self._row_shape, self._dtype = path, row_shape, np.dtype(dtype)
        self._partial = path.with_name(f"{path.name}.partial")
        if keep and path.exists() and not self._partial.exists():  # it was finished, but the run was not
            path.replace(self._partial)
        header = _header((0, *row_shape), self._dtype)
        self._file = self._partial.open("r+b" if keep else "wb")
        self.rows = keep
        self.crc = crc_of_rows(self._partial, keep, dtype) if keep else 0
        size = len(header) + keep * self._dtype.itemsize * int(np.prod(row_shape))
        if keep and self._file.seek(0, os.SEEK_END) < size:
            self._file.close()
            raise ValueError(f"{self._partial} holds fewer than {keep} rows")
        self._file.truncate(size)
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(size)

    def append(self, rows: np.ndarray) -> None:
        """Append rows, [n, *row_shape]."""
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of {rows.shape[1:]} in a file of {self._row_shape}")
        content = np.ascontiguousarray(rows, self._dtype).data.cast("B") if rows.size else b""
        self._file.write(content)
        if not self._row_shape:  # a file of vectors has a checksum of its own when it is complete
            self.crc = zlib.crc32(content, self.crc)
        self.rows += len(rows)

    def flush(self) -> None:
        """Write everything so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self) -> Path:
        """Complete the file, give it its name and return that."""
        self._file.seek(0)
        self._file.write(_header((self.rows, *self._row_shape), self._dtype))
        self.flush()
        self._file.close()
        self._partial.replace(self.path)
        return self.path

    def close(self) -> None:
        """Close the file without completing it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
