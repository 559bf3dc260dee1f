"""What stages will cost, before they run, and how long those take that are left, by those that have ended."""

import functools
import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jaxplm import hf
from jaxplm.config import Config
from jaxplm.data.checksums import read_json
from jaxplm.hf.config import config_from_hf
from jaxplm.nn.config import EncoderConfig
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.costs import flops_by, runs_of
from jaxplm.recipes.adapt.plan import METHODS, Plan, Stage
from jaxplm.recipes.adapt.stage_config import stage_config
from jaxplm.recipes.adapt.task_texts import TaskRows
from jaxplm.reporting.numbers import count, duration

_SAMPLE = 500  # texts whose tokens are counted
_FULL = 0.95  # share of a row that packed texts fill
_START_SECONDS = 15.0  # of a process: imports, reading, compiling


@dataclass(frozen=True)
class Estimate:
    """What a stage costs, about.

    Attributes:
      runs: one per seed.
      tokens: trained on, in all runs; 0 where it is not known, as of a selection.
      flops: of these.
    """

    runs: int
    tokens: float
    flops: float


class Estimates:
    """Estimates of a plan's stages.

    Raises:
      UserError: the model or its tokenizer cannot be read.
    """

    def __init__(self, config: Config, plan: Plan, workdir: Path, task: TaskRows) -> None:
        self._plan, self._workdir = plan, workdir
        directory = hf.resolve(config.model.path)
        path = directory / "config.json"
        self._encoder: EncoderConfig = config_from_hf(read_json(path), str(path))
        tokenizer, _ = hf.load_tokenizer(directory, config.model.path)
        sample = task.texts[:: max(1, len(task.texts) // _SAMPLE)][:_SAMPLE]
        lengths = [len(one.ids) for one in tokenizer.backend_tokenizer.encode_batch(list(sample))]
        self._mean_length = sum(lengths) / max(1, len(lengths))
        self._lengths = lengths
        self._texts, self._rows = len(task.texts), task.rows

    @functools.cache  # noqa: B019 one object per command
    def of(self, name: str) -> Estimate:
        """Return the estimate of a stage."""
        stage = self._plan[name]
        config = stage_config(stage.recipe, stage.fields | ({"train.learning_rate": 1e-4} if stage.chooses else {}))
        train, data = config.train, config.data
        if stage.recipe == "select":
            return Estimate(1, 0.0, 0.0)
        runs = len(train.seeds) or 1
        if stage.recipe in METHODS:
            length = sum(min(one, data.seq_len) for one in self._lengths) / max(1, len(self._lengths))
            rows = min(self._rows, data.max_rows or self._rows)
            texts = train.steps * train.batch_size if train.steps is not None else (train.epochs or 0) * rows
            tokens = texts * length * runs
        elif train.steps is not None:
            tokens = float(train.steps * train.batch_size * data.seq_len * _FULL)
        else:  # epochs over the task's texts; those of a corpus are not counted before it is read
            tokens = (train.epochs or 0) * self._texts * self._mean_length
        return Estimate(runs, tokens, flops_by(self._encoder, config, tokens))

    def seconds(self, name: str) -> float | None:
        """Return how long a stage takes, by those that have ended; None before any has."""
        rate = self._seconds_per_flop()
        one = self.of(name)
        return None if rate is None else _START_SECONDS * one.runs + one.flops * rate

    def _seconds_per_flop(self) -> float | None:
        spent = flops = 0.0
        for stage in self._plan.stages:
            if (note := state.read_ended(self._workdir, stage)) and (one := self.of(stage.name)).flops:
                spent += max(note["seconds"] - _START_SECONDS * one.runs, 0.05 * note["seconds"])
                flops += one.flops
        return spent / flops if flops else None

    def seconds_left(self, parallel: int) -> float | None:
        """Return how long the stages take that have not ended; None before any has."""
        left = 0.0
        for stage in self._plan.stages:
            if state.read_ended(self._workdir, stage):
                continue
            if (seconds := self.seconds(stage.name)) is None:
                return None
            left += seconds * (1 - self._done(stage))
        return left / parallel

    def _done(self, stage: Stage) -> float:
        """Return which share of its runs a stage has behind it, by the last lines of their metrics."""
        if not (started := state.read_started(self._workdir, stage)):
            return 0.0
        done = 0.0
        for run in runs_of(self._workdir / stage.place):
            if (run / "export").exists():
                done += 1
            elif steps := started["inputs"].get("train.steps"):
                done += min(1.0, _last_step(run) / steps)
        return min(1.0, done / self.of(stage.name).runs)

    def table(self, again: Collection[str] = ()) -> list[tuple[str, ...]]:
        """Return the rows of a table of all stages, for the log.

        Args:
          again: stages that have ended or begun, and are made from something else now.
        """
        rows = [("stage", "recipe", "runs", "tokens", "operations", "time", "state")]
        total = Estimate(0, 0.0, 0.0)
        for stage in self._plan.stages:
            one, seconds = self.of(stage.name), self.seconds(stage.name)
            there = "ended" if state.read_ended(self._workdir, stage) else "begun" if state.read_started(self._workdir, stage) else ""
            if there and stage.name in again:
                there = "runs again"
            rows.append((stage.name, stage.recipe, str(one.runs), *_numbers(one), "" if seconds is None else duration(seconds), there))
            total = Estimate(total.runs + one.runs, total.tokens + one.tokens, total.flops + one.flops)
        rows.append(("all", "", str(total.runs), *_numbers(total), "", ""))
        return rows


def _numbers(one: Estimate) -> tuple[str, str]:
    return (count(one.tokens), f"{one.flops:.2g}") if one.tokens else ("", "")


def _last_step(run: Path) -> int:
    """Return the last step that metrics.jsonl names; 0 where there is none."""
    try:
        with (run / "metrics.jsonl").open(encoding="utf-8") as file:
            lines = list(itertools.islice(file, 100_000))
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError, KeyError):
        return 0
