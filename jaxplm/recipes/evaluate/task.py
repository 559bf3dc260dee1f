"""A fine-tuned model on labelled or unlabelled rows: its scores where there are labels, a prediction for every row."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxplm import hf, nn
from jaxplm.config import Config, Fallback, Task
from jaxplm.data.labelled.label_forms import LabelForms, without_mark
from jaxplm.data.labelled.label_set import LabelSet, warn_unknown
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.labelled.task_batches import FixedBatches, FixedRows, task_batch
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import is_first
from jaxplm.engine.predict import Predictor, measured
from jaxplm.engine.workdir import claim
from jaxplm.errors import UserError
from jaxplm.reporting.metric_log import MetricLog
from jaxplm.reporting.numbers import scores_text
from jaxplm.reporting.predictions import write_predictions
from jaxplm.tasks.kinds import KINDS
from jaxplm.tasks.kinds.kind import EvalSet

log = logging.getLogger("jaxplm")


def run(config: Config, workdir: Path) -> None:
    """Write scores on `data.validation` and `data.test`, and predictions.jsonl for the last of those that are given.

    Raises:
      UserError: the rows cannot be read, or `task.kind` is not the model's.
    """
    loaded = hf.load_task_model(config.model.path, KINDS)
    kind = KINDS[loaded.head.kind]
    if config.task.kind not in ("", kind.name):
        raise UserError(f"task.kind={config.task.kind}: {config.model.path} is a model for {kind.name}")
    if not config.data.test and isinstance(config.data.validation, Fallback):  # what the recipe has for masked LMs
        raise UserError(f"{config.model.path} is a model for {kind.name}: give rows of that task as data.test or data.validation")
    if config.data.general:
        raise UserError(f"data.general={config.data.general!r} is for masked language modelling: {config.model.path} is a model for"
                        f" {kind.name}")
    hf.log_notes(loaded.notes)
    mesh = sharding.make_mesh(config.mesh)
    rows = config.train.batch_size
    sharding.check_batch(rows, 1, mesh)
    note = _export_note(config.model.path)
    labels = kind.labels_of_model(loaded.labels)
    reading = _reading(note, labels)
    if reading.scheme == "":
        labels = replace(labels, scheme="")
    graph, abstract = nn.abstract_task_model(loaded.config, loaded.head)
    task = kind.loss(Task(kind=kind.name), labels)
    predict = Predictor(graph, abstract, task, mesh, resolve_compute(config.compute, mesh),
                        by_token=loaded.head.per_token, rows=rows)
    params = jax.tree.map(sharding.place, loaded.params, sharding.param_shardings(abstract, mesh))
    sets = {split: _eval_set(config, split, source, labels, loaded, reading, note)
            for split, source in (("validation", config.data.validation), ("test", config.data.test)) if source}
    claim(workdir, config, write=is_first())
    predictions: Sequence[dict[str, Any]] = []
    with MetricLog(workdir, enabled=is_first()) as metrics:
        for split, eval_set in sets.items():
            batches = _batches(eval_set, rows, config.data.seq_len, loaded.config.pad_id, mesh)
            found, result = measured(predict, params, batches, eval_set, task)
            predictions = result.predictions
            if result.scores:
                metrics.write(0, split, found)
                log.info("%s: %s", eval_set.examples.describe, scores_text(found))
            else:
                log.info("%s: no labels, so no scores", eval_set.examples.describe)
    if is_first():
        write_predictions(workdir / "predictions.jsonl", predictions)
        log.info("%s predictions: %s", f"{len(predictions):,}", workdir / "predictions.jsonl")


def _export_note(path: str) -> dict[str, Any]:
    """Return what the export says about its training; {} for a model of another program."""
    note = hf.resolve(path) / "exported.json"
    return json.loads(note.read_text("utf-8")) if note.exists() else {}


def _reading(note: dict[str, Any], labels: LabelSet) -> TaggedReading:
    """Return how the training set of the model was read; of a model without a note, what the names of its labels say."""
    if "reading" not in note:
        return TaggedReading(scheme=labels.scheme)
    try:
        return TaggedReading.from_json(note["reading"])
    except ValueError as error:
        raise UserError(f"exported.json beside the model: reading: {error}; write the export again") from None


def _eval_set(config: Config, split: str, source: str, labels: LabelSet, loaded: hf.LoadedTask, reading: TaggedReading,
              note: dict[str, Any]) -> EvalSet:
    data, kind = config.data, KINDS[loaded.head.kind]
    loaded.config.check_length(data.seq_len, "data.seq_len", config.model.path)
    examples = read_examples(source, kind, data, split=split, labelled=False, reading=reading)
    names = () if kind.per_token else data.label_names  # tags were named when they were read
    examples = without_mark(LabelForms.of_model(labels.names, names).apply(examples)).in_scheme(labels.scheme)
    examples.warn_unscored()
    warn_unknown(labels, examples)
    encoded = kind.encode(examples, loaded.tokenizer, data.seq_len, config.task.overlap)
    has_unanswerable = bool(note.get("may_lack")) if note else kind.has_unanswerable(examples)
    return EvalSet(kind, examples, encoded, labels, config.task, has_unanswerable)


def _batches(eval_set: EvalSet, rows: int, seq_len: int, pad_id: int, mesh: jax.sharding.Mesh) -> FixedBatches:
    def local_rows(rows: int) -> np.ndarray:
        return sharding.local_rows(rows, mesh)

    encoded = eval_set.encoded
    targets = eval_set.kind.targets(eval_set.examples, encoded, eval_set.labels)
    return FixedBatches(FixedRows(encoded.lengths, rows, seq_len, local_rows=local_rows), partial(task_batch, encoded, targets, pad_id))
