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
    """Trains a masked language model; see `jaxplm.engine.job.Job`.

    Raises:
      UserError: the model, the corpus or the batch size cannot be used.
    """

    metric = LOSS

    def __init__(self, config: Config, workdir: Path, mesh: jax.sharding.Mesh, compute: nn.Compute) -> None:
        self.config = config
        self.settings = config.train
        self.rows = config.train.batch_size
        sharding.check_batch(self.rows, config.train.accumulate, mesh)
        self.model = start_model(config, workdir)
        new, first = self.model.new, config.vocab.new_rows_first
        self.corpus = load_corpus(config, self.model.tokenizer, sharding.local_rows(self.rows, mesh),
                                  prefer_from=new.first if new and config.vocab.mask_new else None)
        self._encoder_config = without_attention_dropout(self.model.training, compute)
        self.graph, abstract = nn.abstract_model(self._encoder_config)
        self.params = self.model.params
        self.train = self.corpus.train
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
        measured = {}
        for split, batches in self.corpus.evaluations.items():
            began = time.monotonic()
            metrics = self.task.metrics(evaluation_sums(self._eval_step, params, batches, self.rows, self._mesh))
            measured[split] = metrics | {"seconds": round(time.monotonic() - began, 3)}
        return measured

    def finish(self, params: nn.ParamTree, write: Callable[[str, Metrics], None]) -> None:
        """Do nothing: the validation set was measured with these parameters."""

    def facts(self, steps: int) -> JobFacts:
        config, encoder_config, new = self.config, self._encoder_config, self.model.new
        vocabulary = Section("Vocabulary", markdown=self.model.vocabulary, in_card=False)
        return JobFacts(
            title=TITLES[config.recipe],
            sections=[vocabulary],
            model={
                "start": config.model.path or f"random weights, size {config.model.size}",
                "architecture": f"{encoder_config.model_type}, {encoder_config.layers} layers × {encoder_config.width},"
                                f" {encoder_config.heads} heads, vocabulary {encoder_config.total_vocab:,}",
                **({"new tokens": f"{new.count:,}, rows by {config.vocab.init}"} if new else {}),
                **({"extension": _extension(encoder_config)} if encoder_config.extension else {}),
                "parameters": f"{self.model.size:,}",
            },
            data=self.corpus.facts | {"tokens per epoch": f"{self.corpus.train.real_tokens:,}"},
            settings={
                "steps": f"{steps:,} × {self.rows} rows ({steps / self.corpus.train.steps_per_epoch:.2f} epochs)",
                "masking": _masking(config),
                **self._objective.settings,
                "dropout": f"{encoder_config.dropout:g}, attention {encoder_config.attention_dropout:g}",
            })

    def export(self, directory: Path, params: nn.ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        extended = self._encoder_config.extension is not None
        card = Card(usage=LOAD if extended else FILL_MASK, pipeline_tag="fill-mask",
                    library="jaxplm" if extended else "transformers")
        hf.save(directory, self.model.config, params, self.model.tokenizer, self.model.hf_config,
                files={"README.md": model_card(self.config, facts, card, rows)})


def _extension(encoder_config: nn.EncoderConfig) -> str:
    extension = encoder_config.extension
    assert extension
    return (f"{extension.tokens:,} tokens, {extension.heads} heads × {extension.width // extension.heads},"
            f" feed-forward {extension.ffn_width:,}")


def _masking(config: Config) -> str:
    data = config.data
    rate = f"{data.mask_rate:.0%}" + (f" → {data.mask_rate_end:.0%}" if data.mask_rate_end is not None else "")
    return f"{rate} of the tokens, {'whole words' if data.whole_word else 'single tokens'}"
