"""A fine-tuned model on labelled or unlabelled rows: its scores where there are labels, a prediction for every row."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data.labelled.examples import read_examples
from jaxplm.data.labelled.label_set import LabelSet, labels_of_checkpoint, warn_unknown
from jaxplm.data.labelled.task_batches import FixedTaskBatches
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import is_first
from jaxplm.engine.predict import Predictor, measured
from jaxplm.engine.workdir import claim
from jaxplm.errors import UserError
from jaxplm.recipes.finetune.labelled_sets import units_of
from jaxplm.reporting.metric_log import MetricLog
from jaxplm.reporting.numbers import scores_text
from jaxplm.reporting.predictions import write_predictions
from jaxplm.tasks.labelled import task_of
from jaxplm.tasks.results import Reading

log = logging.getLogger("jaxplm")


def run(config: Config, workdir: Path) -> None:
    """Scores on `data.validation` and `data.test`, and predictions.jsonl for the last of those that are given.

    Raises UserError where the rows cannot be read, or `task.kind` is not the model's.
    """
    loaded = hf.load_task_model(config.model.path)
    kind = loaded.head.kind
    if config.task.kind not in ("", kind):
        raise UserError(f"task.kind={config.task.kind}: {config.model.path} is a model for {kind}")
    if not config.data.test and config.data.validation == "builtin:pydocs":  # what the recipe has for masked LMs
        raise UserError(f"{config.model.path} is a model for {kind}: give rows of that task as data.test or data.validation")
    if config.data.general:
        raise UserError(f"data.general={config.data.general!r} is for masked language modelling: {config.model.path} is a model for {kind}")
    for note in loaded.notes:
        log.info("%s", note)
    mesh = sharding.make_mesh(config.mesh)
    rows = config.train.batch_size
    sharding.check_batch(rows, 1, mesh)
    labels = labels_of_checkpoint(kind, dict(enumerate(loaded.labels)))
    graph, abstract = nn.abstract_task_model(loaded.config, loaded.head)
    task = task_of(config.task.__class__(kind=kind), labels)
    predict = Predictor(graph, abstract, task, mesh, resolve_compute(config.compute, mesh),
                        by_token=not loaded.head.pooled, rows=rows)
    params = jax.tree.map(sharding.place, loaded.params, sharding.param_shardings(abstract, mesh))
    readings = {split: _reading(config, split, source, labels, loaded)
                for split, source in (("validation", config.data.validation), ("test", config.data.test)) if source}
    claim(workdir, config, write=is_first())
    predictions: list[dict[str, Any]] = []
    with MetricLog(workdir, enabled=is_first()) as metrics:
        for split, reading in readings.items():
            batches = FixedTaskBatches(reading.units, rows, config.data.seq_len, pad_id=loaded.config.pad_id,
                                       slots=lambda count: sharding.my_rows(count, mesh))
            found, result = measured(predict, params, batches, reading, task)
            predictions = result.predictions
            if result.scores:
                metrics.write(0, split, found)
                log.info("%s: %s", reading.examples.describe, scores_text(found))
            else:
                log.info("%s: no labels, so no scores", reading.examples.describe)
    if is_first():
        write_predictions(workdir / "predictions.jsonl", predictions)
        log.info("%s predictions: %s", f"{len(predictions):,}", workdir / "predictions.jsonl")


def _reading(config: Config, split: str, source: str, labels: LabelSet, loaded: hf.LoadedTask) -> Reading:
    loaded.config.check_length(config.data.seq_len, "data.seq_len", config.model.path)
    examples = read_examples(source, loaded.head.kind, config.data, split=split, labelled=False).in_scheme(labels.scheme)
    examples.warn_unscored()
    warn_unknown(labels, examples)
    units = units_of(examples, loaded.tokenizer, labels, config)
    note = hf.resolve(config.model.path) / "exported.json"
    may_lack = bool(json.loads(note.read_text("utf-8")).get("may_lack")) if note.exists() else _some_lack(examples.labels)
    return Reading(examples, units, labels, config.task.max_answer, config.task.rules, may_lack)


def _some_lack(labels: list[Any]) -> bool:
    """Whether some questions are known to have no answer: then the model may say so too."""
    return bool(np.any([label is not None and hasattr(label, "texts") and not label.texts for label in labels]))
