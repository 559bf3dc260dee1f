"""Fine-tuning and feature extraction: a labelled task as a `Job`."""

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxplm import hf, nn
from jaxplm.config import METRICS, Config
from jaxplm.data.labelled.task_batches import FixedTaskBatches, TaskBatches
from jaxplm.data.labelled.units import Units
from jaxplm.devices import sharding
from jaxplm.devices.compute import without_attention_dropout
from jaxplm.devices.processes import is_first
from jaxplm.engine import optim
from jaxplm.engine.job import Metrics
from jaxplm.engine.predict import Predictor, measured
from jaxplm.errors import UserError
from jaxplm.nn import paths
from jaxplm.recipes.finetune.cached_features import FeatureBatches, VectorCache, fingerprint_of
from jaxplm.recipes.finetune.labelled_sets import read_sets, units_of
from jaxplm.reporting import usage
from jaxplm.reporting.card import Card, model_card
from jaxplm.reporting.facts import Facts, JobFacts, Section
from jaxplm.reporting.predictions import write_predictions
from jaxplm.reporting.sections import classes_section, confusion_figure, entities_section
from jaxplm.scores.metric import metric_named
from jaxplm.tasks.labelled import LabelledTask, task_of
from jaxplm.tasks.results import Result

log = logging.getLogger("jaxplm")

PIPELINE_TAGS = {"tag": "token-classification", "qa": "question-answering"}  # others: text-classification
TITLES = {"finetune": "Fine-tuning", "feature_extraction": "Feature extraction"}
# Rows that are looked at in one go without a gradient: enough to keep a device busy.
EVALUATION_ROWS = 32


class Downstream:
    """See `jaxplm.engine.job.Job`. Raises UserError for a model, data or settings that cannot be used.

    Args:
      vectors: where those of a frozen encoder are kept.
    """

    def __init__(self, config: Config, workdir: Path, mesh: jax.sharding.Mesh, compute: nn.Compute, *, vectors: Path) -> None:
        self.config, self.workdir, self._vectors, self._mesh, self._compute = config, workdir, vectors, mesh, compute
        self.sets = read_sets(config)
        self.metric = metric_named(chosen_metric(config, plain_tags=config.task.kind == "tag" and not self.sets.labels.scheme))
        task = config.task
        head = nn.HeadConfig(task.kind, self.sets.labels.outputs, task.pooling, task.layers, task.body, task.body_width, task.dropout)
        self.loaded = hf.load_task_model(config.model.path, head, seed=config.seed)
        for note in self.loaded.notes:
            log.info("%s", note)
        self.head = self.loaded.head
        shape = self.loaded.config
        shape.check_length(config.data.seq_len, "data.seq_len", config.model.path)
        training = shape.with_dropout(config.model.dropout, config.model.attention_dropout)
        self._shape = without_attention_dropout(training, compute)
        self._whole = reinitialised(self.loaded.params, shape, config.train.reinit_layers, config.seed)
        self.task: LabelledTask = task_of(task, self.sets.labels)
        self._prepare_batches()
        self._prepare_model()

    # ---------------------------------------------------------------- what it is made of

    def _prepare_batches(self) -> None:
        config, pad = self.config, self.loaded.config.pad_id
        shards = sharding.row_shards(self._mesh)

        def slots(rows: int) -> np.ndarray:
            return sharding.my_rows(rows, self._mesh)

        made = {name: units_of(examples, self.loaded.tokenizer, self.sets.labels, config)
                for name, examples in {"train": self.sets.train, **self.sets.evaluated}.items()}
        self.units: dict[str, Units] = made
        self.train: Any = TaskBatches(made["train"], config.train.batch_size, config.data.seq_len, pad_id=pad, seed=config.seed,
                                      row_multiple=shards * config.train.accumulate, slots=slots)
        self.rows = self.train.rows_per_step
        # Rows a step depend on the devices. A run that goes on with other rows would be another run.
        self.fingerprint = f"{self.sets.fingerprint} {self.rows} rows a step"
        self._evaluation_rows = -(-EVALUATION_ROWS // shards) * shards
        self._fixed: dict[str, Any] = {
            name: FixedTaskBatches(units, self._evaluation_rows, config.data.seq_len, pad_id=pad, slots=slots)
            for name, units in made.items()}
        most = max(batches.slots for batches in self._fixed.values())
        for batches in self._fixed.values():
            batches.slots = most  # one shape, one compilation

    def _prepare_model(self) -> None:
        """The whole model, or its head alone on vectors that are computed once, where the encoder is frozen."""
        config = self.config
        graph, abstract = nn.abstract_task_model(self._shape, self.head)
        self.settings, self.params, self.graph = config.train, self._whole, graph
        self.train_first: optim.TrainFirst | None = None
        self.cached = self._is_cached(abstract)
        if self.cached:
            by_token = not self.head.pooled
            placed = jax.tree.map(sharding.place, self._whole, sharding.param_shardings(abstract, self._mesh))
            cache = VectorCache(self._vectors, graph, placed, self._mesh, self._compute, by_token=by_token,
                                rows=self._evaluation_rows)
            encoder = fingerprint_of(self._whole["encoder"])
            batches = {}
            for name, units in self.units.items():
                mark = f"{encoder} {dataclasses.asdict(self.head)} {fingerprint_of({}, units.ids, units.token_types, units.offsets)}"
                vectors = cache(name, self._fixed[name], units.lengths, mark)
                batches[name] = lambda rows, count, vectors=vectors, units=units: FeatureBatches(
                    rows, vectors, units.lengths, sharding.my_rows(count, self._mesh), by_token=by_token)
            self.train = batches["train"](self.train, self.rows)
            self._fixed = {name: batches[name](rows, self._evaluation_rows) for name, rows in self._fixed.items()}
            self.graph, abstract = nn.abstract_head_model(self._shape, self.head)
            self.params = {"head": self._whole["head"]}
            names = paths.named(abstract)
            freeze = tuple(pattern for pattern in config.train.freeze if any(re.match(pattern, name) for name in names))
            self.settings = dataclasses.replace(config.train, freeze=freeze, layer_decay=1.0, unfreeze_every=0)
        self._predict = Predictor(self.graph, abstract, self.task, self._mesh, self._compute, by_token=not self.head.pooled,
                                  rows=self._evaluation_rows)
        self.sections: list[Section] = []  # of the report: scores by class, once they are measured

    def _is_cached(self, abstract: nn.ParamTree) -> bool:
        if self.config.task.cache == "off" or not self.config.train.freeze:
            frozen = False
        else:
            masks = paths.named(optim.frozen_layers(abstract, self.config.train.freeze))
            frozen = all(mask.all() for name, mask in masks.items() if name.startswith("encoder/"))
        if self.config.task.cache == "on" and not frozen:
            raise UserError("task.cache=on needs a frozen encoder: give train.freeze=\"('encoder',)\"")
        return frozen

    # ---------------------------------------------------------------- what the loop asks for

    @property
    def eval_traces(self) -> int:
        return self._predict.traces

    def evaluate(self, params: nn.ParamTree) -> dict[str, Metrics]:
        return {"validation": self._measure("validation", params)[0]}

    def _measure(self, name: str, params: nn.ParamTree) -> tuple[Metrics, Result]:
        reading = self.sets.reading(self.sets.evaluated[name], self.units[name], self.config)
        return measured(self._predict, params, self._fixed[name], reading, self.task)

    def finish(self, params: nn.ParamTree, write: Callable[[str, Metrics], None]) -> None:
        """Measures the test set and writes predictions.jsonl for it; without one, looks once more at the validation set."""
        name = "test" if "test" in self.sets.evaluated else "validation"
        metrics, result = self._measure(name, params)
        if name == "test" and result.scores:
            write("test", metrics)
        if not is_first():
            return
        if name == "test":
            write_predictions(self.workdir / "predictions.jsonl", result.predictions)
        if result.classes:
            figures = [confusion_figure(self.workdir, result.confusion, result.classes)] if result.confusion is not None else []
            self.sections.append(classes_section(result.classes, name, figures))
        if result.entities:
            self.sections.append(entities_section(result.entities, name))

    def facts(self, steps: int) -> JobFacts:
        config, shape, batches = self.config, self._shape, self.train
        size = {name: leaf.size for name, leaf in paths.named(self._whole).items()}
        frozen = paths.named(optim.frozen_layers(self._whole, config.train.freeze))
        trained = sum(round(size[name] * (1 - mask.mean())) for name, mask in frozen.items())
        parts = (self.head.kind, f"pooling {self.head.pooling}" if self.head.pooled else "", f"layers {self.head.layers}", self.head.body)
        head = ", ".join(filter(None, parts))
        return JobFacts(
            title=f"{TITLES[config.recipe]}: {config.task.kind}", metric=self.metric.name, sections=self.sections,
            model={
                "start": config.model.path,
                "architecture": f"{shape.model_type}, {shape.layers} layers × {shape.width}, {shape.heads} heads,"
                                f" vocabulary {shape.total_vocab:,}",
                "head": head,
                "parameters": f"{sum(size.values()):,}, of which {trained:,} are trained",
            },
            data=self.sets.facts | {"packed rows": f"{batches.rows:,} × {config.data.seq_len}, {batches.fill:.1%} full"},
            settings={
                "steps": f"{steps:,} × {self.rows} rows, about {batches.units_per_step:.1f} texts"
                         f" ({steps / batches.steps_per_epoch:.2f} epochs)",
                "chosen by": f"validation {self.metric.name}",
                "dropout": f"{shape.dropout:g}, attention {shape.attention_dropout:g}"
                           + (f", head {self.head.dropout:g}" if self.head.dropout is not None else ""),
                **({"vectors": "of the frozen encoder, computed once"} if self.cached else {}),
            })

    def export(self, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        whole = {"encoder": self._whole["encoder"], **params} if self.cached else params
        note = {"step": facts.exported_step, "metric": self.metric.name, "may_lack": self.sets.may_lack}
        in_transformers = self.head.stock and not self._shape.extension
        card = Card(usage=usage.TASKS[self.head.kind] if in_transformers else usage.JAXPLM,
                    pipeline_tag=PIPELINE_TAGS.get(self.head.kind, "text-classification"),
                    library="transformers" if in_transformers else "jaxplm")
        hf.save_task_model(directory, self.loaded.config, self.head, whole, self.loaded.tokenizer, self.loaded.hf_config,
                           self.sets.labels.names,
                           files={"README.md": model_card(facts, card, rows), "exported.json": json.dumps(note) + "\n"})


def chosen_metric(config: Config, *, plain_tags: bool = False) -> str:
    """`train.metric`, or the usual one of the kind of task. Tags that mark no entities have no entity-level scores."""
    usual = "accuracy" if plain_tags else METRICS[config.task.kind][0]
    metric = config.train.metric or usual
    if config.task.kind == "tag":
        there = ("accuracy", "macro_f1", "micro_f1", "loss") if plain_tags else ("f1", "precision", "recall", "accuracy", "loss")
        if metric not in there:
            sort = "without" if plain_tags else "with"
            raise UserError(f"train.metric={metric!r}: tags {sort} entities (B-, I-) have {', '.join(there)}")
    return metric


def reinitialised(params: nn.ParamTree, shape: nn.EncoderConfig, layers: int, seed: int) -> nn.ParamTree:
    """The parameters with the top `layers` blocks drawn anew (Zhang et al. 2021, "Revisiting few-sample BERT fine-tuning")."""
    if not layers:
        return params
    if layers > shape.layers:
        raise UserError(f"train.reinit_layers={layers}: the model has only {shape.layers} blocks")
    fresh = nn.random_params(shape, seed)["encoder"]
    return params | {"encoder": nn.map_blocks(
        lambda old, new: np.concatenate([np.asarray(old)[:-layers], np.asarray(new)[-layers:]]), params["encoder"], fresh)}
