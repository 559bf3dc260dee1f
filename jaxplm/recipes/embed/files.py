"""Write a run's vectors to a directory: shards in the order of the input, and a record of the shards that are complete.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, Records, opened, parse_json, read_json, sealed
from jaxplm.errors import UserError
from jaxplm.recipes.embed.array_file import ArrayFile, crc_of_rows

log = logging.getLogger("jaxplm")

INDEX = "index.json"
_PROGRESS = "progress.jsonl"  # one line per complete shard; removed when the index is written
TOKENS, OFFSETS = "tokens.npy", "offsets.npy"
_TYPES = {TOKENS: np.int32, OFFSETS: np.int64}


def is_complete(directory: Path) -> bool:
    """Return whether a directory is complete. The index is written last."""
    return (directory / INDEX).is_file()


def read_index(directory: Path) -> dict[str, Any]:
    """Return the content of index.json."""
    return read_json(directory / INDEX)


def damaged_files(directory: Path, records: Records) -> list[str]:
    """Return what is wrong with the files of a complete directory, by their records or, without these, by the index."""
    if records.has(directory):
        return records.damaged(directory)
    try:
        index = read_index(directory)
        shards = index["shards"]
        if any(shard["file"] != _shard_name(number) for number, shard in enumerate(shards)):
            raise Damaged("it lists other files")
        if any(index[name] != sum(shard[name] for shard in shards) for name in ("rows", "vectors")):
            raise Damaged("its totals are not those of its shards")
        return [f"{shard['file']} is not what was written" for shard in shards if not _is_whole(directory / shard["file"], shard["sha256"])]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{INDEX} is not what was written"]


def _shard_name(number: int) -> str:
    return f"embeddings-{number:05}.npy"


def remove_index(directory: Path) -> None:
    """Let a complete directory be one of a run that was interrupted before it completed a shard."""
    (directory / INDEX).unlink(missing_ok=True)
    (directory / _PROGRESS).unlink(missing_ok=True)


def _is_whole(file: Path, sha256: str) -> bool:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == sha256
    except OSError:
        return False


class VectorFiles:
    """Writes embeddings-00000.npy, ... [vectors, D], each complete or absent, and at the end index.json.

    With `by_token` there are also tokens.npy [T] int32, the token of each vector, and offsets.npy [rows + 1] int64. Row
    i has the vectors offsets[i] to offsets[i + 1] - 1, counted over all shards; those of one row are in one shard.

    Args:
      directory: created if it does not exist; shards that an interrupted run has completed are kept.
      width: D.
      dtype: of the vectors.
      shard_rows: vectors per shard; with `by_token` a shard ends with the block of rows that reaches this number.
      identity: of the model. A directory with shards of another model is refused.
      by_token: whether there is one vector per token and not per row.

    Attributes:
      rows: rows of the input whose vectors are in complete shards.
      shards: the entry of each complete shard in index.json.

    Raises:
      UserError: the directory holds the beginning of another model's vectors, or cannot be written.
    """

    def __init__(
        self, directory: Path, width: int, dtype: np.dtype, shard_rows: int, identity: str, *, by_token: bool
    ) -> None:
        self._directory, self._shard_rows, self._by_token = directory, shard_rows, by_token
        self._width, self._dtype = width, dtype
        self._progress = directory / _PROGRESS
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror}") from None
        self._arrays: list[dict[str, Any]] = []  # of each shard: rows and checksum of tokens.npy and offsets.npy up to its end
        self.shards = self._complete_shards(identity)
        self.rows = sum(shard["rows"] for shard in self.shards)
        vectors = sum(shard["vectors"] for shard in self.shards)
        if by_token:
            try:
                self._tokens = ArrayFile(directory / TOKENS, (), _TYPES[TOKENS], keep=vectors)
                self._offsets = ArrayFile(directory / OFFSETS, (), _TYPES[OFFSETS], keep=self.rows + 1 if self.rows else 0)
            except (OSError, ValueError) as error:
                raise UserError(f"cannot resume from {directory}: {error}; remove it to start again") from None
            if not self.rows:
                self._offsets.append(np.zeros(1, np.int64))
            self._vectors = vectors
        self._shard: ArrayFile | None = None
        self._shard_counts: dict[str, int] = {}

    def _complete_shards(self, identity: str) -> list[dict[str, Any]]:
        """Return the shards that the progress file lists and that are what was written, and rewrite the file with these alone.

        With `by_token`, the beginnings of tokens.npy and offsets.npy that belong to them must be what was written too.
        """
        records = []
        if self._progress.exists():
            text = self._progress.read_text("utf-8", errors="replace")
            lines = text.splitlines()
            for number, line in enumerate(lines, 1):
                try:
                    records.append(opened(parse_json(line, "it"), "it")["record"])
                except Damaged as error:
                    if number < len(lines) or text.endswith("\n"):  # else it was being written when the power failed
                        log.warning("%s: line %d: %s: what follows is computed again", self._progress, number, error)
                    break
            if records and records[0].get("identity") != identity:
                raise UserError(
                    f"{self._directory} was written with other weights or another tokenizer; choose another --workdir"
                )
        shards = []
        for number, record in enumerate(records[1:]):
            arrays = record.pop("arrays", {})
            if record["file"] != _shard_name(number):
                raise UserError(f"{self._progress} lists {record['file']} as shard {number}: it was not written by jaxplm;"
                                " choose another --workdir")
            damaged = [] if _is_whole(self._directory / record["file"], record["sha256"]) else [record["file"]]
            damaged += [name for name, expected in arrays.items() if not self._begins_as(name, *expected)]
            if damaged:
                log.warning("%s: %s is not what was written: the vectors from row %s on are computed again", self._directory,
                            damaged[0], f"{record['first_row']:,}")
                break
            shards.append(record)
            self._arrays.append(arrays)
        atomic.write_text(self._progress, _line({"identity": identity}) + "".join(
            _line(shard | {"arrays": arrays}) for shard, arrays in zip(shards, self._arrays, strict=True)))
        return shards

    def _begins_as(self, name: str, rows: int, value: int) -> bool:
        """Return whether the first rows of an array have the checksum that they had when they were written."""
        path = self._directory / name
        partial = path.with_name(f"{path.name}.partial")
        try:
            return crc_of_rows(path if path.exists() and not partial.exists() else partial, rows, _TYPES[name]) == value
        except OSError:
            return False

    def add(self, vectors: np.ndarray, rows: int, counts: dict[str, int], tokens: np.ndarray | None = None,
            sizes: np.ndarray | None = None) -> None:
        """Write the vectors of the next rows.

        Args:
          vectors: [rows, D], or [t, D] with `by_token`; a block of rows never crosses the end of a shard.
          rows: how many rows of the input these are.
          counts: numbers that are summed per shard.
          tokens, sizes: with `by_token`, ids [t] and the number of vectors of each row [rows].
        """
        if self._shard is None:
            self._shard = ArrayFile(
                self._directory / _shard_name(len(self.shards)), (self._width,), self._dtype
            )
            self._shard_counts = {"first_row": self.rows, "rows": 0, **dict.fromkeys(counts, 0)}
        self._shard.append(vectors)
        for name, value in {"rows": rows, **counts}.items():
            self._shard_counts[name] += value
        if self._by_token:
            assert tokens is not None and sizes is not None
            self._tokens.append(tokens)
            self._offsets.append(self._vectors + np.cumsum(sizes))
            self._vectors += len(vectors)
        if self._shard.rows >= self._shard_rows:
            self._close_shard()

    def _close_shard(self) -> None:
        assert self._shard is not None
        if self._by_token:
            self._tokens.flush()
            self._offsets.flush()
        path = self._shard.finish()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        record = {"file": path.name, "vectors": self._shard.rows, **self._shard_counts, "sha256": digest}
        arrays = {array.path.name: [array.rows, array.crc] for array in (self._tokens, self._offsets)} if self._by_token else {}
        with self._progress.open("a", encoding="utf-8") as file:
            file.write(_line(record | {"arrays": arrays}))
            file.flush()
            os.fsync(file.fileno())
        self.shards.append(record)
        self.rows += record["rows"]
        self._shard = None

    def finish_arrays(self) -> None:
        """Complete the last shard, and the arrays of tokens and offsets."""
        if self._shard is not None:
            self._close_shard()
        if self._by_token:
            self._tokens.finish()
            self._offsets.finish()

    def finish(self, described: dict[str, Any]) -> dict[str, Any]:
        """Write index.json with `described`, totals and shards, and return it. Then the directory is complete."""
        totals = {name: sum(shard[name] for shard in self.shards) for name in ("rows", "vectors", "empty", "truncated")}
        index = {**described, "width": self._width, "dtype": self._dtype.name, **totals, "shards": self.shards}
        atomic.write_text(self._directory / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
        self._progress.unlink()
        return index

    def close(self) -> None:
        """Close the files without completing them."""
        for file in (self._shard, *((self._tokens, self._offsets) if self._by_token else ())):
            if file is not None:
                file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(sealed({"record": record})) + "\n"
