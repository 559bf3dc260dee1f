"""Find the files and sources that a user's spec names (`a.txt,more/*.jsonl,hf:imdb`)."""

import difflib
import glob
import logging
import os
from pathlib import Path

from jaxplm.data.sources.builtin import BuiltinSource
from jaxplm.data.sources.formats import FORMATS, check_format, split_suffix
from jaxplm.data.sources.hub import HubSource
from jaxplm.data.sources.rows import Source
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")


def find_sources(spec: str, split: str = "train") -> list[Source]:
    """Return the sources that a spec names: items in the order given, the files of one item sorted, none twice.

    Args:
      spec: paths, globs, directories (searched in depth), `hf:<name>` and `builtin:<name>`, separated by commas.
      split: the split of hub names and built-ins.

    Raises:
      UserError: nothing is there, an unknown format, a pickle, an unreachable hub.
    """
    sources: list[Source] = []
    seen: set[Path] = set()
    for item in items_of(spec):
        if item.startswith("hf:"):
            sources.append(HubSource(item.removeprefix("hf:"), split))
        elif item.startswith("builtin:"):
            sources.append(BuiltinSource(item.removeprefix("builtin:"), split))
        else:
            for path in _files_of(item):
                check_format(path)
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    sources.append(path)
    if not sources:
        raise UserError("no data given: name a file, a directory, hf:<name> or builtin:pydocs")
    return sources


def local_files(spec: str) -> list[Path]:
    """Return the files that a spec names, without hub names and built-ins."""
    items = (item for item in items_of(spec) if not item.startswith(("hf:", "builtin:")))
    return [path for item in items for path in _files_of(item)]


def items_of(spec: str) -> list[str]:
    """Return the entries of a spec: what commas separate, or the whole where that is the path of a file."""
    # A file's name may hold a comma. Unlike Path.exists, os.path.exists takes a string of any length.
    if os.path.exists(os.path.expanduser(spec)):
        return [spec]
    return [item for item in map(str.strip, spec.split(",")) if item]


def has_splits(item: str) -> bool:
    """Return whether an entry names something with splits of its own: a data set on the hub, or a built-in without a split."""
    return item.startswith("hf:") or item.startswith("builtin:") and "/" not in item


def _files_of(item: str) -> list[Path]:
    path = Path(os.path.expanduser(item))
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return _files_in(path)
    if glob.has_magic(item):
        files = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())
        if not files:
            raise UserError(f"no file matches {item}")
        return files
    raise _not_there(path)


def _files_in(directory: Path) -> list[Path]:
    """Return the files of known formats in a directory, in depth; hidden ones (`.name`, `_name`) are passed over."""
    files = sorted(
        path for path in directory.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(directory))
    )
    files = [path for path in files if split_suffix(path)[0] in FORMATS]
    if not files:
        raise UserError(f"directory {directory} holds no {' '.join(FORMATS)} file")
    if any("train" in path.name for path in files) and any("test" in path.name for path in files):
        log.warning("%s holds train and test files: all %d are read; name those you mean", directory, len(files))
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _not_there(path: Path) -> UserError:
    """Return the error for a path that does not exist, with the nearest name beside it."""
    missing, parent = path.name, path.parent
    while not os.path.exists(parent) and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    names = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    if missing in names:  # a link to nothing
        return UserError(f"no file {path}: {parent / missing} is a link to {os.path.realpath(parent / missing)}, which is not there")
    close = difflib.get_close_matches(missing, names, n=1, cutoff=0.5)
    hint = f"; did you mean {parent / close[0]}?" if close else f"; {parent.absolute()} has no {missing}"
    return UserError(f"no file {path}{hint}")
