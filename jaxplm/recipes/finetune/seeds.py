"""Several seeds in one command: the same run once for each, then mean and standard deviation of their scores."""

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, read_json
from jaxplm.devices.processes import is_first, wait_for_all
from jaxplm.engine.workdir import claim, is_finished, record_export
from jaxplm.errors import UserError
from jaxplm.reporting.console import log_table
from jaxplm.reporting.facts import Facts, Section
from jaxplm.reporting.metric_log import read_metrics
from jaxplm.reporting.numbers import duration
from jaxplm.reporting.report import write_report
from jaxplm.reporting.sections import seeds_section
from jaxplm.reporting.tables import seed_table, seeds_headline
from jaxplm.scores.sums import NOT_SCORES
from jaxplm.tasks.kinds import KINDS

log = logging.getLogger("jaxplm")

RunOne = Callable[[Config, Path, str], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a finished run of one seed."""

    seed: int
    workdir: Path
    corpus: str  # fingerprint of what it read
    step: int  # that was exported
    metric: str  # of the validation set, by which the step was chosen
    rows: list[dict[str, Any]]  # of metrics.jsonl

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Return {'validation': {...}, 'test': {...}} of the exported step; NaN for a score that is not a number, such as a correlation."""
        return {row["split"]: {name: math.nan if value is None else value for name, value in row.items() if name not in NOT_SCORES}
                for row in self.rows if row["split"] != "train" and row["step"] == self.step}


def run(config: Config, workdir: Path, command: str, run_one: RunOne) -> None:
    """Call `run_one` for each of `train.seeds` in `workdir/seed-<n>`, then write the report with mean ± std.

    `workdir/export` and `predictions.jsonl` are copies of those of the seed with the best validation score, so that the
    model is in the same place as after a single run. The same command resumes where it was stopped.

    Raises:
      UserError: as `run_one` does, and where the texts have changed since the first of the seeds.
    """
    claim(workdir, config, write=False)
    if is_finished(workdir, again_from=""):
        log.info("%s is finished: see %s; choose another --workdir for another run", workdir, workdir / "report.md")
        return
    claim(workdir, config, write=is_first())
    outcomes = []
    for seed in config.train.seeds:
        seed_workdir = workdir / f"seed-{seed}"
        log.info("seed %d: %s", seed, seed_workdir)
        run_one(dataclasses.replace(config, seed=seed, train=dataclasses.replace(config.train, seeds=())), seed_workdir, command)
        wait_for_all(f"seed {seed}")
        outcomes.append(_outcome(seed, seed_workdir))
        if outcomes[-1].corpus != outcomes[0].corpus:
            raise UserError(f"the texts of {config.data.train} (or of the evaluation sets), or the rows per step on this machine, have"
                            f" changed between {outcomes[0].workdir} and {seed_workdir}: their scores cannot be compared;"
                            " choose another --workdir")
    if is_first():
        best = outcomes[0]
        metric = KINDS[config.task.kind].metric(best.metric)
        for one in outcomes[1:]:
            if metric.better(one.scores["validation"][one.metric], best.scores["validation"][best.metric]):
                best = one
        _finish(config, workdir, command, outcomes, best)
    wait_for_all("seeds")


def _outcome(seed: int, workdir: Path) -> Outcome:
    """Return the result of a seed's finished run.

    Raises:
      UserError: a file of it is missing or is not what was written.
    """
    # `run_one` has compared the export with its checksums, where there are any.
    try:
        note = read_json(workdir / "export" / "exported.json")
        corpus = read_json(workdir / "config.json")["corpus"]
        outcome = Outcome(seed, workdir, corpus, note["step"], note["metric"], read_metrics(workdir / "metrics.jsonl"))
        if outcome.metric not in outcome.scores["validation"]:
            raise Damaged(f"metrics.jsonl has no {outcome.metric} of step {outcome.step}")
    except (OSError, Damaged, KeyError, TypeError) as error:
        match error:
            case OSError():
                what = f"{Path(error.filename).name}: {error.strerror}"
            case Damaged():
                what = str(error)
            case _:
                what = "exported.json, config.json or metrics.jsonl is not what was written"
        raise UserError(f"the run of seed {seed} is finished, but {workdir} is damaged: {what}; remove {workdir} to run this seed again by"
                        " the same command") from None
    return outcome


def _finish(config: Config, workdir: Path, command: str, outcomes: list[Outcome], best: Outcome) -> None:
    with (workdir / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for one in outcomes:
            for split, found in one.scores.items():
                numbers = {name: value if math.isfinite(value) else None for name, value in found.items()}
                file.write(json.dumps({"step": one.step, "split": split, "seed": one.seed, **numbers}) + "\n")
    by_seed = {one.seed: {f"{split} {name}": value for split, found in one.scores.items() for name, value in found.items()}
               for one in outcomes}
    seconds = sum(row["seconds"] for one in outcomes for row in one.rows if row["split"] == "train")
    data = {"training": config.data.train, "validation": config.data.validation or "held out, or the built-in task's own",
            "test": config.data.test or "none, or the built-in task's own"}
    settings = {"seeds": ", ".join(str(one.seed) for one in outcomes), "exported": f"seed {best.seed}, the best validation {best.metric}"}
    facts = Facts(
        title=f"{config.recipe.replace('_', ' ').capitalize()}: {config.task.kind}, {len(outcomes)} seeds",
        command=command, exported_step=best.step, metric=best.metric,
        headline=seeds_headline(by_seed, best.metric) if len(by_seed) > 1 else "",
        sections=[seeds_section(by_seed), Section("Model", {"start": config.model.path}), Section("Data", data),
                  Section("Settings", settings), Section("Cost", {"training time of all seeds": duration(seconds)})])
    write_report(workdir, facts, best.rows)
    if (best.workdir / "predictions.jsonl").exists():
        shutil.copy2(best.workdir / "predictions.jsonl", workdir / "predictions.jsonl")
    with atomic.new_directory(workdir / "export") as staged:
        shutil.copytree(best.workdir / "export", staged, dirs_exist_ok=True)
    record_export(workdir)
    log_table(seed_table(by_seed), header=True)
    log.info("exported: %s (seed %d); report: %s", workdir / "export", best.seed, workdir / "report.md")
