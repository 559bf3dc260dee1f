"""The state of a stage on disk: what it was made from, whether it has ended, and which learning rate was chosen.

Beside the files of the ordinary run, a stage's workdir has

    started.json   what it is made from; written before the run
    stage.json     the same with cost and command; written last, so that it says that the stage has ended
    log.txt        the output of the run
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, opened, read_json, sealed
from jaxplm.recipes.adapt.contents import contents_of
from jaxplm.recipes.adapt.plan import Plan, Stage
from jaxplm.recipes.adapt.stage_config import fields_read, resolved, stage_config
from jaxplm.scores.metric import metric_named

STARTED, ENDED, LOG = "started.json", "stage.json", "log.txt"
ASIDE = "replaced"  # directory in the workdir: stages that were made from something else

# Fields that may change without another result; those of `jaxplm.engine.workdir`, which imports JAX.
FREE = ("train.log_every", "checkpoint.every", "checkpoint.keep", "mesh.data", "mesh.fsdp", "mesh.tensor",
        "export.name", "export.license", "export.language")


def inputs_of(stage: Stage, plan: Plan, workdir: Path, learning_rate: float | None = None) -> dict[str, Any]:
    """Return everything that a stage's result follows from: {"train.steps": 100, "content of data.train": digest, "stage dapt": identity}.

    Args:
      learning_rate: the chosen one, of a stage that has `chooses`.

    Raises:
      KeyError: a stage that it reads has not ended.
    """
    fields = stage.fields | ({} if learning_rate is None else {"train.learning_rate": learning_rate})
    read = fields_read(stage.recipe) - set(FREE) | {"recipe"}
    found = {name: _without_place(value, workdir) for name, value in resolved(stage_config(stage.recipe, fields)).items()
             if name in read}
    found |= contents_of(stage, workdir)
    for name in stage.after:
        ended = read_ended(workdir, plan[name])
        if ended is None:
            raise KeyError(f"stage {name} has not ended")
        found[f"stage {name}"] = identity_of(ended["inputs"])
    return found


def _without_place(value: Any, workdir: Path) -> Any:
    """Return a value in which places below the workdir do not depend on where that is."""
    return value.replace(f"{workdir}/", "") if isinstance(value, str) else value


def identity_of(inputs: Mapping[str, Any]) -> str:
    """Return a short name for what a stage is made from."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def read_ended(workdir: Path, stage: Stage) -> dict[str, Any] | None:
    """Return the content of stage.json; None where the stage has not ended."""
    return _read(workdir / stage.place / ENDED)


def read_started(workdir: Path, stage: Stage) -> dict[str, Any] | None:
    """Return the content of started.json; None where the stage was never started."""
    return _read(workdir / stage.place / STARTED)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return opened(read_json(path), str(path))
    except (OSError, Damaged):
        return None


def write(path: Path, content: dict[str, Any]) -> None:
    """Write stage.json or started.json, complete or not at all."""
    atomic.write_text(path, json.dumps(sealed(content), indent=1) + "\n")


@dataclass(frozen=True)
class Found:
    """What there is of a stage.

    Attributes:
      state: "ended" and "begun": of what the stage is made from now; "other": made from something else; "none".
      changes: of "other": ("train.steps", 100, 200), ...
    """

    state: str
    changes: tuple[tuple[str, Any, Any], ...] = ()


def look(stage: Stage, workdir: Path, inputs: Mapping[str, Any]) -> Found:
    """Return what there is of a stage that is made from `inputs` now."""
    ended = read_ended(workdir, stage)
    there = ended or read_started(workdir, stage)
    if there is None:
        return Found("none")
    as_read = json.loads(json.dumps(inputs))
    # A field that a later version added had its default value in the older run.
    default = resolved(Config())
    old, new = ({name: found.get(name, default.get(name)) for name in (*as_read, *there["inputs"])} for found in (there["inputs"], as_read))
    changes = tuple((name, old[name], new[name]) for name in new if old[name] != new[name])
    return Found("other", changes) if changes else Found("ended" if ended else "begun")


def set_aside(stage: Stage, workdir: Path) -> Path | None:
    """Move what there is of a stage to replaced/, and return its new place; a stage that has not ended is moved too."""
    there = read_ended(workdir, stage) or read_started(workdir, stage)
    source = workdir / stage.place
    if not source.exists():
        return None
    name = identity_of(there["inputs"]) if there else time.strftime("%Y%m%d-%H%M%S")
    target = workdir / ASIDE / stage.name / name
    while target.exists():
        target = target.with_name(f"{target.name}x")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    return target


def take_back(stage: Stage, workdir: Path, inputs: Mapping[str, Any]) -> bool:
    """Move a stage back from replaced/ that was made from these inputs, if there is one."""
    source, target = workdir / ASIDE / stage.name / identity_of(inputs), workdir / stage.place
    if not source.exists() or (target.exists() and any(target.iterdir())):  # Snakemake makes the directory before the stage starts
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    return True


# ---------------------------------------------------------------- the chosen learning rate


def validation_score(workdir: Path, stage: Stage) -> tuple[str, float]:
    """Return (metric, its best value on the validation set) of a stage of one seed that has ended."""
    place = workdir / stage.place
    note = read_json(place / "export" / "exported.json")
    for line in (place / "metrics.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == "validation" and row["step"] == note["step"]:
            value = row.get(note["metric"])
            return note["metric"], math.nan if value is None else value
    raise Damaged(f"{place / 'metrics.jsonl'} has no validation score of step {note['step']}")


def chosen_rate(stage: Stage, plan: Plan, workdir: Path) -> float | None:
    """Return the learning rate with the best validation score among the stages that `stage` chooses from; of equal ones the smallest.

    None of a stage that chooses from none. Raises OSError where one of them has not ended.
    """
    best: tuple[float, float] | None = None
    for name in stage.chooses:
        metric, value = validation_score(workdir, plan[name])
        candidate = metric_named(metric).cost(value), plan[name].fields["train.learning_rate"]
        best = candidate if best is None else min(best, candidate)
    return best[1] if best else None
