"""Several seeds in one command: the same run once for each, and what their scores have in common."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from jaxplm import report
from jaxplm.config import Config
from jaxplm.logs import read_metrics, summary_table
from jaxplm.metrics import NOT_SCORES
from jaxplm.runtime import is_first, wait_for_all
from jaxplm.scores.names import LOWER_IS_BETTER
from jaxplm.workdir import claim, is_finished

log = logging.getLogger("jaxplm")

RunOne = Callable[[Config, Path, str], None]


def run(config: Config, workdir: Path, command: str, run_one: RunOne, metric: str) -> None:
    """`run_one` for every one of `train.seeds` in `workdir/seed-<n>`; then the report with mean ± std.

    `workdir/export` and `predictions.jsonl` are copies of those of the seed with the best validation score, so that what
    comes next finds a model where it would find that of a single run. The same command goes on where it was stopped.

    Args:
      metric: of the validation set, by which that seed is chosen.
    """
    claim(workdir, config, write=False)
    if is_finished(workdir):
        log.info("%s is finished: see %s; choose another --workdir for another run", workdir, workdir / "report.md")
        return
    claim(workdir, config, write=is_first())
    scores: dict[int, dict[str, dict[str, float]]] = {}
    for seed in config.train.seeds:
        log.info("seed %d: %s", seed, _place(workdir, seed))
        one = dataclasses.replace(config, seed=seed, train=dataclasses.replace(config.train, seeds=()))
        run_one(one, _place(workdir, seed), command)
        scores[seed] = exported_scores(_place(workdir, seed))
    if is_first():
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = max(scores, key=lambda seed: sign * scores[seed]["validation"][metric])
        _finish(config, workdir, command, scores, best)
    wait_for_all("seeds")


def _place(workdir: Path, seed: int) -> Path:
    return workdir / f"seed-{seed}"


def exported_scores(workdir: Path) -> dict[str, dict[str, float]]:
    """{'validation': {...}, 'test': {...}}: the scores of the model that a finished run has exported."""
    step = json.loads((workdir / "export" / "exported.json").read_text("utf-8"))["step"]
    return {row["split"]: {name: value for name, value in row.items() if name not in NOT_SCORES and isinstance(value, int | float)}
            for row in read_metrics(workdir / "metrics.jsonl") if row["split"] != "train" and row["step"] == step}


def _finish(config: Config, workdir: Path, command: str, scores: dict[int, dict[str, dict[str, float]]], best: int) -> None:
    with (workdir / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for seed, splits in scores.items():
            for split, found in splits.items():
                step = json.loads((_place(workdir, seed) / "export" / "exported.json").read_text("utf-8"))["step"]
                file.write(json.dumps({"step": step, "split": split, "seed": seed, **found}) + "\n")
    table = report.write_seeds_report(workdir, config.recipe, command, scores, best)
    if (predictions := _place(workdir, best) / "predictions.jsonl").exists():
        shutil.copy2(predictions, workdir / "predictions.jsonl")
    partial = workdir / "export.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(_place(workdir, best) / "export", partial)
    partial.rename(workdir / "export")
    for line in summary_table(table, header=True).split("\n"):
        log.info("%s", line)
    log.info("exported: %s (seed %d); report: %s", workdir / "export", best, workdir / "report.md")
