"""From the files of the stages to a `Comparison`: scores, curves, costs, losses before and after, failures."""

import functools
import math
from pathlib import Path
from typing import Any

from jaxplm.config import Config
from jaxplm.data.checksums import read_json
from jaxplm.recipes.adapt import costs, state
from jaxplm.recipes.adapt.local import failure_line
from jaxplm.recipes.adapt.plan import METHODS, Plan, Row, Stage
from jaxplm.recipes.adapt.stage_config import stage_config
from jaxplm.recipes.adapt.task_texts import TaskRows
from jaxplm.recipes.finetune.labelled_sets import read_sets
from jaxplm.reporting.comparison.comparison import Comparison, Cost, Encoder, Run, Vocabularies, Way
from jaxplm.scores.metric import metric_named
from jaxplm.scores.sums import NOT_SCORES
from jaxplm.tasks.kinds import KINDS
from jaxplm.tasks.kinds.kind import RowSet
from jaxplm.tasks.row_parts import parts_of


class Collector:
    """Reads the stages of a comparison that have ended.

    Args:
      task: what was read of the task at the start.
      vocabularies: measured apart.
      command: what repeats the comparison.
    """

    def __init__(self, config: Config, plan: Plan, workdir: Path, task: TaskRows, vocabularies: Vocabularies | None, command: str) -> None:
        self._config, self._plan, self._workdir = config, plan, workdir
        self._task, self._vocabularies, self._command = task, vocabularies, command
        self._notes = {stage.name: state.read_ended(workdir, stage) for stage in plan.stages}

    def comparison(self) -> Comparison:
        """Return everything that the report shows."""
        config = self._config
        ways = tuple(self._way(row) for row in self._plan.rows)
        metric = metric_named(self._metric())
        encoders = tuple(self._encoder(stage) for stage in self._plan.stages if stage.recipe not in ("select", *METHODS)
                         and self._notes[stage.name])
        return Comparison(
            metric.name, metric.higher_is_better, config.task.kind, ways, encoders, self._vocabularies, self._settings(),
            (*self._task.notes, *self._few_that_failed()),
            next((note["hardware"] for note in self._notes.values() if note and note.get("hardware")), ""), self._command,
            all(self._notes.values()) or all(way.runs or way.failure for way in ways),
            tuple(sorted(config.adapt.few_rows)), self._task.rows, self._task.test_rows)

    def _metric(self) -> str:
        """Return the score that decides: that of the exports, which is `train.metric` or the usual one of these labels."""
        for row in self._plan.rows:
            if self._notes[row.final]:
                return read_json(costs.runs_of(self._workdir / self._plan[row.final].place)[0] / "export" / "exported.json")["metric"]
        return self._config.train.metric or KINDS[self._config.task.kind].metrics[0].name

    def _settings(self) -> tuple[tuple[str, str], ...]:
        config, data = self._config, self._config.data
        found = {"model": config.model.path, "corpus": data.corpus, "task": f"{config.task.kind}: {data.train}",
                 "validation": data.validation or f"{data.held_out:.0%} of the training rows", "test": data.test,
                 "general text": data.general, "off-domain text": config.adapt.off_domain,
                 "seeds": ", ".join(map(str, config.train.seeds or (config.seed,)))}
        return tuple((name, value) for name, value in found.items() if value)

    # ---------------------------------------------------------------- ways

    def _way(self, row: Row) -> Way:
        preparation = [self._plan[name] for name in row.prepared]
        training = [self._plan[name] for name in (*row.trials, row.final)]
        final = self._plan[row.final]
        note = self._notes[row.final]
        few = tuple((rows, self._runs(self._plan[name])) for rows, name in row.few if self._notes[name])
        runs = self._runs(final, parts=True) if note else ()
        rate = (note or {}).get("learning_rate") or final.fields.get("train.learning_rate") or 0.0
        commands = [(self._notes[stage.name] or {}).get("command", "") for stage in
                    (*preparation, *training, *(self._plan[name] for _, name in row.few))]
        return Way(
            row.way, row.method, runs, self._failure(row), rate,
            tuple((self._plan[name].fields["train.learning_rate"], state.validation_score(self._workdir, self._plan[name])[1])
                  for name in row.trials if self._notes[name]),
            costs.total(self._cost(stage) for stage in preparation), costs.total(self._cost(stage) for stage in training),
            costs.trained_parameters(costs.runs_of(self._workdir / final.place)[0]) if runs else 0, few, tuple(filter(None, commands)))

    def _cost(self, stage: Stage) -> Cost:
        return costs.cost_of(self._workdir, stage)

    def _failure(self, row: Row) -> str:
        """Return the stage that kept the way from its end, and the last line of its log."""
        return next((self._ended_by(name) for name in (*row.prepared, *row.trials, row.final) if not self._notes[name]), "")

    def _few_that_failed(self) -> tuple[str, ...]:
        """Return a note for each stage of few labels that failed where the way itself has its score."""
        return tuple(f"failed with {rows} rows: {self._ended_by(name)}" for row in self._plan.rows if self._notes[row.final]
                     for rows, name in row.few if not self._notes[name])

    def _ended_by(self, name: str) -> str:
        return f"{name}: {failure_line(self._workdir, self._plan[name]) or 'not run'}"

    def _runs(self, stage: Stage, *, parts: bool = False) -> tuple[Run, ...]:
        return tuple(self._run(path, parts) for path in costs.runs_of(self._workdir / stage.place))

    @functools.cached_property
    def _test(self) -> RowSet | None:
        """The test set and the labels of the training set, as fine-tuning reads them."""
        stage = self._plan[self._plan.rows[0].final]
        config = stage_config(stage.recipe, stage.fields | {"train.learning_rate": 1.0})
        sets = read_sets(config)
        return RowSet(sets.evaluated["test"], sets.labels, config.task) if "test" in sets.evaluated else None

    def _run(self, path: Path, parts: bool) -> Run:
        note = read_json(path / "export" / "exported.json")
        rows = costs.metrics(path)
        metric = note["metric"]
        chosen = {row["split"]: scores(row) for row in rows if row["split"] in ("validation", "test") and row["step"] == note["step"]}
        curve = tuple((row["step"], _number(row.get(metric))) for row in rows if row["split"] == "validation")
        seed = int(path.name.removeprefix("seed-")) if path.name.startswith("seed-") else self._config.seed
        found = None
        if parts and self._test and chosen.get("test"):
            found = parts_of(path / "predictions.jsonl", KINDS[self._config.task.kind], metric, self._test)
        return Run(seed, chosen.get("validation", {}), chosen.get("test", {}), curve, found)

    # ---------------------------------------------------------------- encoders

    def _encoder(self, stage: Stage) -> Encoder:
        rows = costs.metrics(self._workdir / stage.place)
        domain = {row["step"]: _number(row.get("loss")) for row in rows if row["split"] == "validation"}
        general = {row["step"]: _number(row.get("loss")) for row in rows if row["split"] == "general"}
        # The exported step is that of the lowest validation loss after the first step.
        exported = min((step for step in domain if step), key=lambda step: (domain[step], step), default=0)

        def before_and_after(losses: dict[int, float]) -> tuple[float, float] | None:
            return (losses[0], losses[exported]) if 0 in losses and exported in losses else None

        return Encoder(stage.name, before_and_after(domain), before_and_after(general),
                       tuple((step, loss, general.get(step, math.nan)) for step, loss in sorted(domain.items())))


def scores(row: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a row of metrics.jsonl."""
    return {name: _number(value) for name, value in row.items() if name not in NOT_SCORES}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
