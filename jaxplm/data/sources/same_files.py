"""Files that two specs have in common, by place or by content, and digests of files."""

import functools
import hashlib
from pathlib import Path

from jaxplm.data.sources.formats import split_suffix
from jaxplm.data.sources.specs import local_files
from jaxplm.data.sources.text_stream import errors_named, open_bytes
from jaxplm.errors import UserError


def same_files(one: str, other: str) -> list[str]:
    """Return the files of spec `one` that are also in spec `other`, by place or by content.

    Contents are compared also where only one file is compressed.

    It serves to refuse a training file that is given as test set too. Hub names and built-ins are not compared: their
    splits differ.
    """
    others = local_files(other)
    return [str(path) for path in local_files(one) if any(_same(path, file) for file in others)]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as it is stored; remembered while the file's size and time of change stay."""
    try:
        stat = path.stat()
        return _file_digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # part of the cache's key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    if split_suffix(one)[1] == split_suffix(other)[1]:
        return one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)
    return _content_digest(one) == _content_digest(other)


def _content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's decompressed bytes."""
    digest = hashlib.sha256()
    with errors_named(path), path.open("rb") as raw:
        stream = open_bytes(path, raw)
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
