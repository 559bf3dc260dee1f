"""From what the user calls data (`a.txt,more/*.jsonl,hf:imdb`) to the files and sources it names."""

import difflib
import functools
import glob
import hashlib
import logging
import os
from pathlib import Path

from jaxplm.data.sources import builtin, formats
from jaxplm.data.sources.hub import HubSource
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

Source = Path | HubSource | builtin.BuiltinSource


def resolve(spec: str, split: str = "train") -> list[Source]:
    """The sources that a spec names: items in the order given, the files of one item sorted, none twice.

    Args:
      spec: paths, globs, directories (searched in depth), `hf:<name>`, `builtin:<name>`, separated by commas.
      split: the split of hub names and built-ins.

    Raises:
      UserError: nothing there, an unknown format, a pickle, an unreachable hub.
    """
    sources: list[Source] = []
    seen: set[Path] = set()
    for item in _items(spec):
        if item.startswith("hf:"):
            sources.append(HubSource(item.removeprefix("hf:"), split))
        elif item.startswith("builtin:"):
            sources.append(builtin.BuiltinSource(item.removeprefix("builtin:"), split))
        else:
            for path in _files_of(item):
                formats.check_format(path)
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    sources.append(path)
    if not sources:
        raise UserError("no data given: name a file, a directory, hf:<name> or builtin:pydocs")
    return sources


def same_files(a: str, b: str) -> list[str]:
    """The files of spec `a` that are also in spec `b`, by place or by content (also when only one is packed).

    Used to refuse a training file that is given as test set too. Hub names and built-ins are not compared:
    their splits differ.
    """
    theirs = _local_files(b)
    return [str(path) for path in _local_files(a) if any(_same(path, other) for other in theirs)]


def _local_files(spec: str) -> list[Path]:
    items = (item for item in _items(spec) if not item.startswith(("hf:", "builtin:")))
    return [path for item in items for path in _files_of(item)]


def digest(path: Path) -> str:
    """SHA-256 of a file as it lies; remembered while the file does not change."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _items(spec: str) -> list[str]:
    if os.path.exists(
        os.path.expanduser(spec)
    ):  # a comma in a file name; unlike Path.exists, takes any length
        return [spec]
    return [item for item in map(str.strip, spec.split(",")) if item]


def _files_of(item: str) -> list[Path]:
    path = Path(os.path.expanduser(item))
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        found = [p for p in inside if formats.split_suffix(p)[0] in formats.FORMATS]
        if not found:
            raise UserError(f"directory {path} holds no {' '.join(formats.FORMATS)} file")
        if any("train" in p.name for p in found) and any("test" in p.name for p in found):
            log.warning(
                "%s holds train and test files: all %d are read; name those you mean", path, len(found)
            )
        return found
    if glob.has_magic(item):
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
        if not found:
            raise UserError(f"no file matches {item}")
        return found
    raise _missing(path)


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _missing(path: Path) -> UserError:
    missing, parent = path.name, path.parent
    while not os.path.exists(parent) and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    there = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    close = difflib.get_close_matches(missing, there, n=1, cutoff=0.5)
    hint = f"; did you mean {parent / close[0]}?" if close else f"; {parent.absolute()} has no {missing}"
    return UserError(f"no file {path}{hint}")


def _same(a: Path, b: Path) -> bool:
    if a.resolve() == b.resolve():
        return True
    if formats.split_suffix(a)[1] == formats.split_suffix(b)[1]:
        return a.stat().st_size == b.stat().st_size and digest(a) == digest(b)
    return _unpacked_digest(a) == _unpacked_digest(b)


def _unpacked_digest(path: Path) -> str:
    total = hashlib.sha256()
    with formats.readable(path), path.open("rb") as raw:
        stream = formats.open_bytes(path, raw)
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()
