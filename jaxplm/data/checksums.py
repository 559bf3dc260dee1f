"""Checksums of files, and JSON files that carry their own: nothing that is read back is trusted without one."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxplm.data import atomic
from jaxplm.errors import UserError

_BLOCK = 1 << 24  # bytes
_SEAL = "sha256"


class Damaged(ValueError):
    """A file is not what was written."""


def of_file(path: Path) -> str:
    """Return a checksum of a file's content: CRC-32 of its blocks, by several threads, hashed. About 1 GB/s per core."""
    size = path.stat().st_size
    with path.open("rb") as file:
        def block(start: int) -> bytes:
            return zlib.crc32(os.pread(file.fileno(), _BLOCK, start)).to_bytes(4, "little")

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            sums = b"".join(threads.map(block, range(0, size, _BLOCK)))
    return hashlib.sha256(sums + size.to_bytes(8, "little")).hexdigest()[:32]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
      Damaged: it is not JSON, or is nested too deeply.
      OSError: it cannot be read.
    """
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: bytes | str, name: str) -> Any:
    """Return the content of a JSON text; `name` is what it is called in the message. See `read_json`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise Damaged(f"{name} is nested too deeply") from None
    except ValueError:
        raise Damaged(f"{name} is not JSON") from None


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content with a checksum of itself, for `opened`."""
    return content | {_SEAL: _sum_of(content)}


def opened(content: Any, name: str) -> dict[str, Any]:
    """Return what was given to `sealed`; `name` is what it is called in the message.

    Raises:
      Damaged: it has no checksum, or another one.
    """
    if not isinstance(content, dict):
        raise Damaged(f"{name} is not what was written")
    if _SEAL not in content:
        raise Damaged(f"{name} has no checksum: an earlier version wrote it")
    inner = {key: value for key, value in content.items() if key != _SEAL}
    if content[_SEAL] != _sum_of(inner):
        raise Damaged(f"{name} is not what was written")
    return inner


def _sum_of(content: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))  # keys are strings then
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


class Records:
    """The checksums of a directory's files, in a file beside them that carries its own.

    A file without a record was written by an earlier version, or by a process that was killed before it made one.

    Args:
      directory: names of files are relative to it.
    """

    NAME = ".checksums.json"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / self.NAME

    def add(self, *paths: Path) -> None:
        """Record files as they are now; a directory stands for all files in it, and its older records are dropped."""
        records = self._read()
        for path in paths:
            records = {name: value for name, value in records.items() if not _is_in(name, self._name(path))}
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            records |= {self._name(file): [file.stat().st_size, of_file(file)] for file in files}
        atomic.write_text(self._path, json.dumps(sealed({"files": records}), indent=1) + "\n")

    def has(self, path: Path) -> bool:
        """Return whether there is a record of a file, or of any in a directory."""
        return any(_is_in(name, self._name(path)) for name in self._read())

    def damaged(self, path: Path) -> list[str]:
        """Return what is wrong with a file, or with those in a directory, that has a record: "export/config.json is missing"."""
        found = []
        for name, (size, value) in self._read().items():
            if not _is_in(name, self._name(path)):
                continue
            file = self._directory / name
            if not file.is_file():
                found.append(f"{name} is missing")
            elif file.stat().st_size != size or of_file(file) != value:
                found.append(f"{name} is not what was written")
        return found

    def _name(self, path: Path) -> str:
        return path.relative_to(self._directory).as_posix()

    def _read(self) -> dict[str, Any]:
        """Return {name: [size, checksum]}; a file of records that is damaged says nothing about the others."""
        try:
            return opened(read_json(self._path), str(self._path))["files"]
        except (OSError, Damaged):
            return {}


def _is_in(name: str, directory_or_file: str) -> bool:
    return name == directory_or_file or name.startswith(f"{directory_or_file}/")


def made_once(records: Records, path: Path, make: Callable[[], None], usable: bool, warn: Callable[[str], None]) -> None:
    """Call `make` unless `path` is there, `usable` and undamaged.

    Args:
      make: writes `path`, a file or directory, in place of what is there.
      usable: whether an existing one may be kept.
      warn: takes the line that says what is damaged.

    Raises:
      UserError: what was rebuilt is not what it was before it was damaged.
    """
    damaged = records.damaged(path) if usable else []
    if usable and path.exists() and not damaged:
        return
    if damaged:
        warn(f"{path}: {'; '.join(damaged[:3])}: rebuilt")
    make()
    if damaged and (still := records.damaged(path)):
        raise UserError(f"{path} was damaged and cannot be rebuilt as it was ({'; '.join(still[:3])}); remove {path.parent} or choose"
                        " another --workdir")
    records.add(path)
