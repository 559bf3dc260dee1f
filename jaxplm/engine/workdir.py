"""The run's directory: by which config it was made, and whether the run is finished."""

import dataclasses
import json
import logging
import struct
from pathlib import Path
from typing import Any

from jaxplm.config import Config, flatten
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, Records, read_json
from jaxplm.devices.processes import broadcast, is_first
from jaxplm.errors import UserError
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")

# These say how a run is watched, where it runs or how it is described, not what it computes: they may change when it is resumed.
FREE = ("train.log_every", "checkpoint.every", "checkpoint.keep", "mesh.data", "mesh.fsdp", "mesh.tensor",
        "export.name", "export.license", "export.language")


def claim(workdir: Path, config: Config, *, write: bool, corpus: str = "") -> None:
    """Write config.json into a new workdir, or check that an old one was made by the same config.

    Args:
      write: whether to write a config.json that is not there; the first process does.
      corpus: the fingerprint of the texts, where they have been read: a run must not be resumed with others.

    Raises:
      UserError: with the fields that differ, or the texts have changed, or the directory cannot be written.
    """
    mine = {name: _plain(value) for name, value in flatten(config)}
    path = workdir / "config.json"
    if path.exists():
        try:
            content = read_json(path)
            if not isinstance(content, dict):
                raise Damaged(f"{path} is not what was written")
            theirs = {name: value for name, value in _leaves(content) if name != "version"}
        except (Damaged, OSError) as error:
            raise UserError(f"{path} is damaged: {error}; remove {workdir} or choose another --workdir") from None
        # All of it is compared below, so a change is seen. The checksum says whether the run or the file is another one.
        changed = f" ({path} is not what was written)" if Records(workdir).damaged(path) else ""
        if corpus and theirs.pop("corpus", corpus) != corpus:
            raise UserError(f"the texts of {config.data.train} (or of the evaluation sets), or the rows per step on this machine, have"
                            f" changed since {workdir} was started{changed}; choose another --workdir")
        theirs.pop("corpus", None)
        # A field that a later version added had its default value in the older run.
        theirs = {name: _plain(value) for name, value in flatten(Config())} | theirs
        names = sorted(name for name in mine.keys() | theirs.keys()
                       if name not in FREE and mine.get(name) != theirs.get(name))
        if names:
            changes = ", ".join(f"{name} ({theirs.get(name)} → {mine.get(name)})" for name in names)
            raise UserError(f"{workdir} was made by another config: {changes}{changed}; choose another --workdir")
        return
    if not write:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "corpus": corpus, **dataclasses.asdict(config)}
        atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        Records(workdir).add(path)
    except OSError as error:
        raise UserError(f"cannot write the workdir {workdir}: {error.strerror or error}") from None


def is_claimed(workdir: Path) -> bool:
    """Return whether a run of this config was started here, so that what it chose (tokenizer, new tokens) can be used again.

    Call it after `claim`. Where config.json is missing, such files may be those of another command that was stopped before
    its first step.
    """
    return (workdir / "config.json").exists()


def has_export(workdir: Path) -> bool:
    """Return whether there is an export, which comes last and appears whole. Whether it is what was written says `is_finished`."""
    return (workdir / "export" / "model.safetensors").exists()


def record_export(workdir: Path) -> None:
    """Record the checksums of the export that this process has written."""
    Records(workdir).add(workdir / "export")


def is_finished(workdir: Path, *, again_from: str = "checkpoints") -> bool:
    """Return whether the run has written its export, and it is what was written; all processes of a run call this together.

    A damaged export is named in a warning: the run is not finished, and writes it again.

    Args:
      again_from: what the export can be written again from, a directory in the workdir; "" if it needs none.

    Raises:
      UserError: the export is damaged, and what it could be written again from is not there.
    """
    error, answer = None, 0
    if is_first():
        try:
            answer = int(_is_whole(workdir, again_from))
        except UserError as damaged:
            error, answer = damaged, 2
    if broadcast(answer) == 2:
        raise error or UserError(f"the export of {workdir} is damaged, as the first process says")
    return broadcast(answer) == 1


def _is_whole(workdir: Path, again_from: str) -> bool:
    export, records = workdir / "export", Records(workdir)
    if not export.exists() and not records.has(export):
        return False
    if records.has(export):
        damaged = records.damaged(export)
    else:
        damaged = _unreadable(export)
        if not damaged:
            _record_if_writable(workdir)
    if damaged == ["export/README.md is not what was written"]:
        log.info("%s was changed after the run had written it", export / "README.md")  # a user who describes the model
        return True
    if damaged and again_from and not _has_content(workdir / again_from):
        raise UserError(f"the export of {workdir} is damaged: {_first_of(damaged)}; there is nothing in {workdir / again_from} to write"
                        f" it again from: remove {workdir} to train again, or choose another --workdir")
    if damaged:
        log.warning("the export of %s is damaged: %s; it is written again", workdir, _first_of(damaged))
    return not damaged


def _first_of(damaged: list[str]) -> str:
    """Return the first three of what is wrong with an export, and how many more there are."""
    more = len(damaged) - 3
    return "; ".join([*damaged[:3], *([f"and {more} more"] if more > 0 else [])])


def _record_if_writable(workdir: Path) -> None:
    try:
        record_export(workdir)
    except OSError:
        log.info("%s cannot be written: the checksums of its export are not kept", workdir)


def _has_content(directory: Path) -> bool:
    return directory.is_dir() and any(path.name.isdecimal() for path in directory.iterdir())


def _unreadable(export: Path) -> list[str]:
    """Return what is wrong with an export that has no checksums: one of an earlier version, or of a run that was killed at its end."""
    problems = []
    try:
        read_json(export / "config.json")
    except FileNotFoundError:
        problems.append("export/config.json is missing")
    except (OSError, Damaged) as error:
        problems.append(str(error))
    weights = export / "model.safetensors"
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < 2**30 else {}
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if weights.stat().st_size != 8 + length + end:
            problems.append("export/model.safetensors is cut short")
    except FileNotFoundError:
        problems.append("export/model.safetensors is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        problems.append("export/model.safetensors is not what was written")
    return problems


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _leaves(tree: dict[str, Any], prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
