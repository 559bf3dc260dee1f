"""Run `configs/adapt.py`: the stages of a comparison, and its table."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from jaxplm.config import Config, flatten
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, read_json
from jaxplm.errors import UserError
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.contents import write_contents
from jaxplm.recipes.adapt.local import LocalEngine
from jaxplm.recipes.adapt.plan import Plan, make_plan, write_plan
from jaxplm.recipes.adapt.snakemake_engine import SnakemakeEngine, require_snakemake
from jaxplm.recipes.adapt.stage import described
from jaxplm.recipes.adapt.task_texts import read_task
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")

# A comparison of another task or of another model is another comparison: it gets a workdir of its own.
_SAME = ("model.path", "task.kind", "data.train")


def run(config: Config, workdir: Path, command: str) -> None:
    """Run the stages that have not ended, and write the table; see `jaxplm.recipes.adapt.plan`.

    Raises:
      UserError: the workdir is that of something else, or the task or the texts cannot be read.
      Interrupted: by Ctrl-C or SIGTERM, after the running stages have saved.
    """
    if config.adapt.engine == "snakemake":
        require_snakemake(config.adapt.profile)
    _claim(config, workdir)
    plan = make_plan(config, workdir)
    task = read_task(config, workdir)
    write_contents(plan, workdir)
    write_plan(plan, workdir)
    _log_changes(plan, workdir)
    if config.adapt.engine == "snakemake":
        SnakemakeEngine(plan, workdir, config.adapt.parallel, config.adapt.profile, lambda: None).run()
    else:
        LocalEngine(plan, workdir, config.adapt.parallel, lambda: None).run()
    log.info("%d rows of the task, %s", task.rows, command)


def _claim(config: Config, workdir: Path) -> None:
    """Write config.json, in place of that of an earlier call with other settings.

    Raises:
      UserError: the workdir belongs to another recipe, or to a comparison of another task or model.
    """
    path = workdir / "config.json"
    mine = dict(flatten(config))
    if path.exists():
        try:
            theirs = read_json(path)
            recipe = theirs["recipe"]
            differing = [] if recipe != "adapt" else [name for name in _SAME if _value(theirs, name) != mine[name]]
        except (OSError, Damaged, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); choose another --workdir") from None
        if recipe != "adapt":
            raise UserError(f"{workdir} is the workdir of a run of {recipe}: choose another --workdir for the comparison")
        if differing:
            name = differing[0]
            raise UserError(f"{workdir} holds the comparison of another {'model' if name == 'model.path' else 'task'}: {name}"
                            f" ({_value(theirs, name)} → {mine[name]}); choose another --workdir")
    elif workdir.is_dir() and (others := sorted(entry.name for entry in workdir.iterdir() if not entry.name.startswith("."))):
        raise UserError(f"{workdir} holds other files ({', '.join(others[:3])}) and no comparison; choose another --workdir")
    content = {"version": VERSION, **dataclasses.asdict(config)}
    atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _value(content: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        content = content[part]
    return content


def _log_changes(plan: Plan, workdir: Path) -> None:
    """Say which stages will run, and why those that had ended run again."""
    again: set[str] = set()
    for stage in plan.stages:
        if cause := next((need for need in stage.needs if need in again), ""):
            again.add(stage.name)
            if state.read_ended(workdir, stage):
                log.info("%s: is run again if %s gives another result", stage.name, cause)
            continue
        try:
            inputs = state.inputs_of(stage, plan, workdir, state.chosen_rate(stage, plan, workdir))
        except (KeyError, OSError):
            continue  # what it needs has not ended yet
        found = state.look(stage, workdir, inputs)
        if found.state == "other":
            again.add(stage.name)
            log.info("%s: is run again: %s", stage.name, "; ".join(described(found.changes)))
