"""What a finished run has left in its workdir, as a dataclass."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data.checksums import Damaged, read_json
from jaxplm.errors import UserError
from jaxplm.reporting.metric_log import read_metrics
from jaxplm.scores.metric import LOSS, Metric
from jaxplm.scores.seeds import mean_std
from jaxplm.scores.sums import NOT_SCORES
from jaxplm.tasks.kinds import KINDS

Row = dict[str, Any]  # of metrics.jsonl


@dataclass(frozen=True)
class RunResult:
    """What a run has found, and where its files are. A path is None where the recipe writes no such file.

    Attributes:
      recipe: that was run.
      workdir: of the run.
      command: that does the same.
      metric: the score of the validation set by which the best step and seed were chosen; empty where none was.
      step: the best one; None where nothing was measured.
      first: the row of each split before the first step: {"validation": {"step": 0, "loss": 2.3, ...}, ...}.
      last: the last row of each split.
      best: the row of each evaluated split at the best step: the scores of the exported model.
      mean, std: over `train.seeds`, of each split's scores in `best`; empty for a single run.
      seeds: the result of each of `train.seeds`; empty for a single run.
      export: directory of the model, for `jaxplm.load` or `model.path`.
      report: report.md.
      predictions: predictions.jsonl of the test set.
      embeddings: directory of the vectors.
      plots: directory of the plots.
      rows: all of metrics.jsonl.
      config: with the fields that were given.
    """

    recipe: str
    workdir: Path
    command: str
    metric: str
    step: int | None
    first: dict[str, Row] = field(repr=False)
    last: dict[str, Row] = field(repr=False)
    best: dict[str, Row]
    mean: dict[str, dict[str, float]]
    std: dict[str, dict[str, float]]
    export: Path | None
    report: Path | None
    predictions: Path | None
    embeddings: Path | None
    plots: Path | None
    seeds: dict[int, "RunResult"] = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    config: Config = field(repr=False)


def read_result(config: Config, workdir: Path, command: str) -> RunResult:
    """Return the result of a finished run.

    Raises:
      UserError: metrics.jsonl or the export's exported.json is damaged.
    """
    seeds = {seed: read_result(dataclasses.replace(config, seed=seed, train=dataclasses.replace(config.train, seeds=())),
                               workdir / f"seed-{seed}", command) for seed in config.train.seeds}
    path = workdir / "metrics.jsonl"
    rows = tuple(read_metrics(path)) if path.exists() else ()
    step, metric = _exported(config, workdir, rows)
    mean, std = _over_seeds(seeds)
    if seeds and metric:
        chosen = _best_seed(seeds, metric)
        step, first, last, best = chosen.step, chosen.first, chosen.last, chosen.best
    else:
        first = {row["split"]: row for row in rows if row["step"] == 0}
        last = {row["split"]: row for row in rows}
        best = {row["split"]: row for row in rows if row["step"] == step and row["split"] != "train"}
    return RunResult(
        recipe=config.recipe, workdir=workdir, command=command, metric=metric.name if metric else "", step=step, first=first, last=last,
        best=best, mean=mean, std=std, export=_there(workdir / "export"), report=_there(workdir / "report.md"),
        predictions=_there(workdir / "predictions.jsonl"), embeddings=_there(workdir / "embeddings"), plots=_there(workdir / "plots"),
        seeds=seeds, rows=rows, config=config)


def _exported(config: Config, workdir: Path, rows: tuple[Row, ...]) -> tuple[int | None, Metric | None]:
    """Return the step that was exported, or else measured, and the metric that chose it.

    Raises:
      UserError: exported.json is damaged.
    """
    path = workdir / "export" / "exported.json"
    if path.exists():  # a task's model
        try:
            note = read_json(path)
            return note["step"], KINDS[config.task.kind].metric(note["metric"])
        except (OSError, Damaged, KeyError, TypeError, StopIteration) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__} {error}; remove {workdir} to run again") from None
    if not (workdir / "export").exists():
        return max((row["step"] for row in rows), default=None), None
    step, lowest = max((row["step"] for row in rows), default=None), None
    for row in rows:
        if row["split"] == "validation" and row["step"] > 0 and LOSS.better(row.get("loss"), lowest):
            step, lowest = row["step"], row["loss"]
    return step, LOSS if rows else None


def _best_seed(seeds: dict[int, RunResult], metric: Metric) -> RunResult:
    best, *others = seeds.values()
    for one in others:
        if metric.better(*(result.best.get("validation", {}).get(metric.name) for result in (one, best))):
            best = one
    return best


def _over_seeds(seeds: dict[int, RunResult]) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return mean and standard deviation of each score, by split."""
    values: dict[str, dict[str, list[float]]] = {}
    for result in seeds.values():
        for split, row in result.best.items():
            for name in row.keys() - NOT_SCORES:
                values.setdefault(split, {}).setdefault(name, []).append(math.nan if row[name] is None else row[name])
    both = {split: {name: mean_std(found) for name, found in sorted(scores.items())} for split, scores in values.items()}
    mean, std = ({split: {name: pair[i] for name, pair in scores.items()} for split, scores in both.items()} for i in (0, 1))
    return mean, std


def _there(path: Path) -> Path | None:
    return path if path.exists() else None
