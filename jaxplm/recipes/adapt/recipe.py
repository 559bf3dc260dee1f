"""Run `configs/adapt.py`: the stages of a comparison, and its table."""

import dataclasses
import functools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxplm import hf
from jaxplm.config import Config, flatten
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, read_json
from jaxplm.errors import UserError
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.collect import Collector
from jaxplm.recipes.adapt.contents import write_contents
from jaxplm.recipes.adapt.estimates import Estimates
from jaxplm.recipes.adapt.local import LocalEngine
from jaxplm.recipes.adapt.plan import WAYS, Plan, command_of, command_text, make_plan, write_plan
from jaxplm.recipes.adapt.snakemake_engine import SnakemakeEngine, require_snakemake
from jaxplm.recipes.adapt.stage import described
from jaxplm.recipes.adapt.task_texts import read_task
from jaxplm.recipes.adapt.vocabularies import vocabularies
from jaxplm.reporting.comparison.comparison import Comparison, Run
from jaxplm.reporting.comparison.write import write_reports
from jaxplm.reporting.console import log_table
from jaxplm.reporting.numbers import duration
from jaxplm.scores.seeds import format_mean_std
from jaxplm.version import VERSION
from jaxplm.vocab.reach import fixed_because

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
    _check_vocabulary(config)
    _claim(config, workdir)
    plan = make_plan(config, workdir)
    task = read_task(config, workdir)
    write_contents(plan, workdir)
    write_plan(plan, workdir)
    again = _log_changes(plan, workdir)
    estimates = Estimates(config, plan, workdir, task)
    if config.adapt.dry_run:
        log_table(estimates.table(again), header=True)
        for stage in plan.stages:
            chosen = ", with the best of the learning rates" if stage.chooses else ""
            log.info("%s: %s%s", stage.name, command_text(command_of(stage, workdir)), chosen)
        log.info("adapt.dry_run: nothing was run; times are known when the first stages have ended")
        return
    seconds_left = functools.partial(estimates.seconds_left, config.adapt.parallel)
    if config.adapt.engine == "snakemake":
        SnakemakeEngine(plan, workdir, config.adapt.parallel, config.adapt.profile, seconds_left).run()
    else:
        LocalEngine(plan, workdir, config.adapt.parallel, seconds_left).run()
    comparison = Collector(config, plan, workdir, task, vocabularies(config, workdir), command).comparison()
    write_reports(workdir, comparison)
    log_table(table(comparison), header=True)
    log.info("report: %s and %s", workdir / "report.md", workdir / "report.html")


def table(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the rows of a table of the ways, for the log: the deciding score on the test set, on the validation set without one."""
    split = "test" if any(run.test for way in comparison.ways for run in way.runs) else "validation"
    several = len({way.method for way in comparison.ways}) > 1

    def score(runs: Sequence[Run]) -> str:
        values = [getattr(run, split).get(comparison.metric, math.nan) for run in runs]
        return format_mean_std(comparison.metric, values) if values else ""

    rows = [("", f"{split} {comparison.metric}", *(f"{rows} rows" for rows in comparison.few_rows), "learning rate", "time")]
    for way in comparison.ways:
        few = dict(way.few)
        name = f"{way.name}, {way.method}" if several else way.name
        rows.append((name, score(way.runs) or "failed", *(score(few.get(rows, ())) for rows in comparison.few_rows),
                     f"{way.learning_rate:g}", duration(way.preparation.seconds + way.training.seconds)))
    return rows


def _check_vocabulary(config: Config) -> None:
    """Raise a `UserError` where a way adds tokens to a vocabulary that takes none."""
    if not (adding := [way for way in config.adapt.ways if {"extend_vocab", "exbert"}.intersection(WAYS[way])]):
        return
    tokenizer, _ = hf.load_tokenizer(hf.resolve(config.model.path), config.model.path)
    if reason := fixed_because(tokenizer):
        raise UserError(f"adapt.ways: {adding[0]} cannot be done with model.path={config.model.path}: {reason}; leave it out")


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


def _log_changes(plan: Plan, workdir: Path) -> frozenset[str]:
    """Say which stages that had ended or begun run again, and why, and which follow from them; return the names of all these."""
    again: list[str] = []
    for stage in plan.stages:
        if set(stage.needs) & {name for one in again for name in (one, *plan.dependents(one))}:
            continue
        try:
            inputs = state.inputs_of(stage, plan, workdir, state.chosen_rate(stage, plan, workdir))
        except (KeyError, OSError):
            continue  # what it needs has not ended yet
        found = state.look(stage, workdir, inputs)
        if found.state != "other":
            continue
        again.append(stage.name)
        following = [name for name in plan.dependents(stage.name) if state.read_ended(workdir, plan[name])]
        log.info("%s: runs again: %s%s", stage.name, "; ".join(described(found.changes)),
                 f"; and after it {', '.join(following)}" if following else "")
    return frozenset(name for one in again for name in (one, *plan.dependents(one)))
