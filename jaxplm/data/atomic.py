"""Write files and directories that are complete or absent, also after a kill or a power cut."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def sync(path: Path) -> None:
    """Have a file's content on the disk. A rename alone can survive a power cut that the content does not."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def existing_parent(path: Path) -> Path:
    """Return the directory itself if it exists, else the nearest of its parents that does."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; at the end of the block that file takes the name `path`.

    After an exception the unfinished file is removed and `path` is as it was. Missing parent directories are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def open_new(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the name `path` at the end of the block; see `new_file`. Text is UTF-8."""
    with new_file(path) as partial, partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file that is complete or absent; see `new_file`."""
    with open_new(path) as file:
        file.write(text)


@contextmanager
def new_directory(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside `path`; at the end of the block it takes the name `path`.

    The name beside it is fixed on each host, so what a killed process left there is found and removed. After an exception the
    unfinished directory is removed and `path` is as it was.

    Args:
      keep_existing: a directory that has the name `path` by then is kept and the new one dropped, for a cache whose content
        follows from its name. Otherwise the new one replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{socket.gethostname()}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    staged = scratch / "new"
    try:
        staged.mkdir(parents=True)
        yield staged
        for file in staged.rglob("*"):
            if file.is_file():
                sync(file)
        if path.exists() and not keep_existing:  # rename() does not replace a directory that holds files: the old one steps aside
            path.rename(scratch / "old")
        try:
            staged.rename(path)
        except OSError as error:
            if not keep_existing or error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
