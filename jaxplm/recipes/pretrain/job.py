"""Further pre-training and pre-training from scratch: masked language modelling as a `Job`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data.corpus.token_text import token_characters
from jaxplm.devices import sharding
from jaxplm.devices.compute import without_attention_dropout
from jaxplm.engine import optim
from jaxplm.engine.job import Metrics
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import evaluation_sums
from jaxplm.recipes.pretrain.corpus import load_corpus
from jaxplm.recipes.pretrain.model import start_model
from jaxplm.reporting.card import FILL_MASK, LOAD, Card, model_card
from jaxplm.reporting.facts import Facts, JobFacts, Section
from jaxplm.scores.metric import LOSS
from jaxplm.tasks.objectives import selected_objective

TITLES = {"dapt": "Domain-adaptive pre-training", "tapt": "Task-adaptive pre-training", "scratch": "Pre-training from scratch",
          "extend_vocab": "Vocabulary extension", "exbert": "exBERT: an extension beside a base"}


class Pretraining:
    """See `jaxplm.engine.job.Job`. Raises UserError for a model, corpus or batch size that cannot be used."""

    metric = LOSS

    def __init__(self, config: Config, workdir: Path, mesh: jax.sharding.Mesh, compute: nn.Compute) -> None:
        self.config, self.settings, self.rows = config, config.train, config.train.batch_size
        sharding.check_batch(self.rows, config.train.accumulate, mesh)
        self.model = start_model(config, workdir)
        new, first = self.model.new, config.vocab.new_rows_first
        self.corpus = load_corpus(config, self.model.tokenizer, sharding.my_rows(self.rows, mesh),
                                  prefer_from=new.first if new and config.vocab.mask_new else None)
        self._shape = without_attention_dropout(self.model.training, compute)
        self.graph, abstract = nn.abstract_model(self._shape)
        self.params, self.train = self.model.params, self.corpus.train
        self.train_first = optim.new_rows_first(abstract, new.first, first) if new and first else None
        self.fingerprint = self.corpus.fingerprint
        characters = token_characters(self.model.tokenizer.backend_tokenizer)
        self._objective = selected_objective(config.model.pairs)
        self.task = self._objective.task(characters, self.corpus.max_segments_per_row, config.compute.logit_parts)
        self._mesh = mesh
        self._eval_step = make_eval_step(self.graph, self.task.sums, abstract, mesh, compute=compute)

    @property
    def eval_traces(self) -> int:
        return self._eval_step.traces

    def evaluate(self, params: nn.ParamTree) -> dict[str, Metrics]:
        found = {}
        for split, batches in self.corpus.evaluations.items():
            began = time.monotonic()
            metrics = self.task.metrics(evaluation_sums(self._eval_step, params, batches, self.rows, self._mesh))
            found[split] = metrics | {"seconds": round(time.monotonic() - began, 3)}
        return found

    def finish(self, params: nn.ParamTree, write: Callable[[str, Metrics], None]) -> None:
        """Nothing is left to measure: the validation set was measured with these parameters."""

    def facts(self, steps: int) -> JobFacts:
        config, shape, new = self.config, self._shape, self.model.new
        vocabulary = Section("Vocabulary", markdown=self.model.vocabulary, in_card=False)
        return JobFacts(
            title=TITLES[config.recipe],
            sections=[vocabulary],
            model={
                "start": config.model.path or f"random weights, size {config.model.size}",
                "architecture": f"{shape.model_type}, {shape.layers} layers × {shape.width}, {shape.heads} heads,"
                                f" vocabulary {shape.total_vocab:,}",
                **({"new tokens": f"{new.count:,}, rows by {config.vocab.init}"} if new else {}),
                **({"extension": _extension(shape)} if shape.extension else {}),
                "parameters": f"{self.model.size:,}",
            },
            data=self.corpus.facts | {"tokens an epoch": f"{self.corpus.train.real_tokens:,}"},
            settings={
                "steps": f"{steps:,} × {self.rows} rows ({steps / self.corpus.train.steps_per_epoch:.2f} epochs)",
                "masking": _masking(config),
                **self._objective.settings,
                "dropout": f"{shape.dropout:g}, attention {shape.attention_dropout:g}",
            })

    def export(self, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        extended = self._shape.extension is not None
        card = Card(usage=LOAD if extended else FILL_MASK, pipeline_tag="fill-mask",
                    library="jaxplm" if extended else "transformers")
        hf.save(directory, self.model.config, params, self.model.tokenizer, self.model.hf_config,
                files={"README.md": model_card(self.config, facts, card, rows)})


def _extension(shape: nn.EncoderConfig) -> str:
    assert shape.extension
    own = shape.extension
    return f"{own.tokens:,} tokens, {own.heads} heads × {own.width // own.heads}, feed-forward {own.ffn_width:,}"


def _masking(config: Config) -> str:
    data = config.data
    rate = f"{data.mask_rate:.0%}" + (f" → {data.mask_rate_end:.0%}" if data.mask_rate_end is not None else "")
    return f"{rate} of the tokens, {'whole words' if data.whole_word else 'single tokens'}"
