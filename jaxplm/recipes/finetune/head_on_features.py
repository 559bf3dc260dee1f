"""The job that trains a head alone, on vectors that a frozen encoder gave once."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxplm import nn
from jaxplm.config import Train
from jaxplm.data.labelled.task_batches import FixedBatches, TrainBatches
from jaxplm.data.labelled.unit_rows import encoder_batch
from jaxplm.devices import sharding
from jaxplm.engine.job import Metrics
from jaxplm.engine.optim import TrainFirst
from jaxplm.nn import paths
from jaxplm.recipes.finetune import outcome
from jaxplm.recipes.finetune.cached_features import VectorCache, feature_batch, fingerprint_of
from jaxplm.recipes.finetune.evaluation import Evaluation
from jaxplm.recipes.finetune.setup import TaskSetup
from jaxplm.reporting.facts import Facts, JobFacts, Section


class HeadOnFeatures:
    """Trains the head; see `jaxplm.engine.job.Job`. The encoder stays that of the start.

    Args:
      setup: of the task.
      vectors: the directory of the encoder's vectors.

    Raises:
      UserError: no space on the disk for the vectors, or no permission.
    """

    def __init__(self, setup: TaskSetup, vectors: Path) -> None:
        self._setup = setup
        self.graph, abstract = nn.abstract_head_model(setup.start.encoder_config, setup.start.head)
        self.params = {"head": setup.start.params["head"]}
        self.settings = head_settings(setup.config.train, abstract)
        self.train_first: TrainFirst | None = None
        self.task, self.metric = setup.task, setup.metric
        self.rows, self.fingerprint = setup.rows, setup.fingerprint
        encoded, per_token = setup.encoded, setup.start.head.per_token
        make = {name: partial(feature_batch, features, encoded.targets[name], per_token)
                for name, features in _features(setup, vectors).items()}
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
        return outcome.job_facts(self._setup, steps, self._sections, {"vectors": "of the frozen encoder, computed once"})

    def export(self, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        outcome.export(self._setup, directory, {"encoder": self._setup.start.params["encoder"], **params}, facts, rows)


def head_settings(train: Train, abstract: nn.ParamTree) -> Train:
    """Return the training settings less what concerns the encoder, which is not there.

    Args:
      abstract: the parameters of the head alone.
    """
    names = paths.named(abstract)
    freeze = tuple(pattern for pattern in train.freeze if any(re.match(pattern, name) for name in names))
    return dataclasses.replace(train, freeze=freeze, layer_decay=1.0, unfreeze_every=0)


def _features(setup: TaskSetup, directory: Path) -> dict[str, Any]:
    """Return the vectors of each set, [n, M, D] of units or [T, M, D] of tokens, from `directory` if they are there."""
    start, encoded = setup.start, setup.encoded
    graph, abstract = nn.abstract_task_model(start.encoder_config, start.head)
    placed = jax.tree.map(sharding.place, start.params, sharding.param_shardings(abstract, setup.mesh))
    cache = VectorCache(directory, graph, placed, setup.mesh, setup.compute, per_token=start.head.per_token, rows=encoded.evaluation_rows)
    encoder = fingerprint_of(start.params["encoder"])
    features = {}
    for name, one in encoded.encoded.items():
        batches = FixedBatches(encoded.fixed_rows[name], partial(encoder_batch, one, encoded.pad_id))
        features[name] = cache(name, batches, one.lengths,
                               f"{encoder} {start.head.as_dict()} {fingerprint_of({}, one.ids, one.types, one.offsets)}")
    return features
