"""The job that trains encoder and head together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxplm import nn
from jaxplm.data.labelled.task_batches import FixedBatches, TrainBatches, task_batch
from jaxplm.engine.job import Metrics
from jaxplm.engine.optim import TrainFirst
from jaxplm.recipes.finetune import outcome
from jaxplm.recipes.finetune.evaluation import Evaluation
from jaxplm.recipes.finetune.setup import TaskSetup
from jaxplm.reporting.facts import Facts, JobFacts, Section


class WholeModel:
    """Trains the whole model on rows of tokens; see `jaxplm.engine.job.Job`."""

    def __init__(self, setup: TaskSetup) -> None:
        self._setup = setup
        self.graph, abstract = nn.abstract_task_model(setup.start.encoder_config, setup.start.head)
        self.params = setup.start.params
        self.settings = setup.config.train
        self.train_first: TrainFirst | None = None
        self.task, self.metric = setup.task, setup.metric
        self.rows, self.fingerprint = setup.rows, setup.fingerprint
        encoded = setup.encoded
        make = {name: partial(task_batch, encoded.encoded[name], encoded.targets[name], encoded.pad_id) for name in encoded.encoded}
        self.train = TrainBatches(encoded.train_rows, make["train"])
        self._evaluation = Evaluation(setup, self.graph, abstract,
                                      {name: FixedBatches(rows, make[name]) for name, rows in encoded.fixed_rows.items()})
        self._sections: list[Section] = []  # of the report: what `finish` measured

    @property
    def eval_traces(self) -> int:
        return self._evaluation.traces

    def evaluate(self, params: nn.ParamTree) -> dict[str, Metrics]:
        return {"validation": self._evaluation.validation(params)}

    def finish(self, params: nn.ParamTree, write: Callable[[str, Metrics], None]) -> None:
        self._sections = self._evaluation.finish(params, write)

    def facts(self, steps: int) -> JobFacts:
        return outcome.job_facts(self._setup, steps, self._sections, {})

    def export(self, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        outcome.export(self._setup, directory, params, facts, rows)
