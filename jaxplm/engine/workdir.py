"""The run's directory: by which config it was made, and whether the run is finished."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxplm.config import Config, flatten
from jaxplm.data import atomic
from jaxplm.errors import UserError
from jaxplm.version import VERSION

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
            theirs = {name: value for name, value in _leaves(json.loads(path.read_text("utf-8"))) if name != "version"}
        except ValueError:
            raise UserError(f"{path} is damaged: not JSON; remove {workdir} or choose another --workdir") from None
        if corpus and theirs.pop("corpus", corpus) != corpus:
            raise UserError(f"the texts of {config.data.train} (or of the evaluation sets), or the rows per step on this machine, have"
                            f" changed since {workdir} was started; choose another --workdir")
        theirs.pop("corpus", None)
        # A field that a later version added had its default value in the older run.
        theirs = {name: _plain(value) for name, value in flatten(Config())} | theirs
        names = sorted(name for name in mine.keys() | theirs.keys()
                       if name not in FREE and mine.get(name) != theirs.get(name))
        if names:
            changes = ", ".join(f"{name} ({theirs.get(name)} → {mine.get(name)})" for name in names)
            raise UserError(f"{workdir} was made by another config: {changes}; choose another --workdir")
        return
    if not write:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "corpus": corpus, **dataclasses.asdict(config)}
        atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the workdir {workdir}: {error.strerror or error}") from None


def is_claimed(workdir: Path) -> bool:
    """Return whether a run of this config was started here, so that what it chose (tokenizer, new tokens) can be used again.

    Call it after `claim`. Where config.json is missing, such files may be those of another command that was stopped before
    its first step.
    """
    return (workdir / "config.json").exists()


def is_finished(workdir: Path) -> bool:
    """Return whether the run has written its export, which comes last and appears whole."""
    return (workdir / "export" / "model.safetensors").exists()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _leaves(tree: dict[str, Any], prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
