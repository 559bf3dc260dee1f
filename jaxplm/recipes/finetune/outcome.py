"""What a run of a labelled task says about itself, and the model directory that it leaves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxplm import hf, nn
from jaxplm.engine import optim
from jaxplm.nn import paths
from jaxplm.recipes.finetune.setup import TaskSetup
from jaxplm.reporting.card import LOAD, Card, model_card
from jaxplm.reporting.facts import Facts, JobFacts, Section

TITLES = {"finetune": "Fine-tuning", "feature_extraction": "Feature extraction"}


def job_facts(setup: TaskSetup, steps: int, sections: Sequence[Section], settings: Mapping[str, str]) -> JobFacts:
    """Return what the report says about a run.

    Args:
      steps: of the whole run.
      sections: further ones.
      settings: further ones, of the job.
    """
    config, start, rows = setup.config, setup.start, setup.encoded.train_rows
    head, encoder_config = start.head, start.encoder_config
    size = {name: leaf.size for name, leaf in paths.named(start.params).items()}
    frozen = paths.named(optim.frozen_layers(start.params, config.train.freeze))
    trained = sum(round(size[name] * (1 - mask.mean())) for name, mask in frozen.items())
    parts = (head.kind, f"pooling {head.pooling}" if head.pooled else "", f"layers {head.layers}", head.body)
    return JobFacts(
        title=f"{TITLES[config.recipe]}: {config.task.kind}", metric=setup.metric.name, sections=sections,
        model={
            "start": config.model.path,
            "architecture": f"{encoder_config.model_type}, {encoder_config.layers} layers × {encoder_config.width},"
                            f" {encoder_config.heads} heads, vocabulary {encoder_config.total_vocab:,}",
            "head": ", ".join(filter(None, parts)),
            "parameters": f"{sum(size.values()):,}, of which {trained:,} are trained",
        },
        data=setup.sets.facts | {"packed rows": f"{rows.rows:,} × {config.data.seq_len}, {rows.fill:.1%} full"},
        settings={
            "steps": f"{steps:,} × {setup.rows} rows, about {rows.units_per_step:.1f} texts ({steps / rows.steps_per_epoch:.2f} epochs)",
            "chosen by": f"validation {setup.metric.name}",
            "dropout": f"{encoder_config.dropout:g}, attention {encoder_config.attention_dropout:g}"
                       + (f", head {head.dropout:g}" if head.dropout is not None else ""),
            **settings,
        })


def export(setup: TaskSetup, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
    """Write the model directory.

    Args:
      params: of the whole `TaskModel`, NumPy arrays.
      facts, rows: for the model card; see `jaxplm.engine.job.Job.export`.
    """
    loaded, kind = setup.start.loaded, setup.sets.kind
    in_transformers = bool(hf.hf_class_of(kind, loaded.head, loaded.config))
    card = Card(usage=kind.usage if in_transformers else LOAD, pipeline_tag=kind.pipeline_tag,
                library="transformers" if in_transformers else "jaxplm")
    note: dict[str, Any] = {"step": facts.exported_step, "metric": setup.metric.name, "may_lack": setup.sets.has_unanswerable}
    if setup.sets.train.tokens is not None:
        note["reading"] = setup.sets.train.reading.to_json()
    hf.save_task_model(directory, loaded, params, setup.sets.labels.names,
                       files={"README.md": model_card(setup.config, facts, card, rows), "exported.json": json.dumps(note) + "\n"})
