"""The model and tokenizer that a pre-training run starts with."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.recipes.pretrain.checks import EXTENDING
from jaxplm.recipes.pretrain.extended_model import NewTokens, extended_model
from jaxplm.recipes.pretrain.new_model import new_model
from jaxplm.tasks.objectives import selected_objective

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class Model:
    """A model before the first step. The leaves of `params` are NumPy or JAX float32 arrays."""

    config: nn.EncoderConfig  # what is exported
    training: nn.EncoderConfig  # the same with this run's dropout
    params: nn.ParamTree
    tokenizer: Any
    hf_config: dict[str, Any]  # config.json of the checkpoint, {} for a new model
    new: NewTokens | None = None  # of the recipes that extend a vocabulary
    vocabulary: str = ""  # of the vocabulary recipes: a section of report.md, in Markdown

    @property
    def size(self) -> int:
        """Number of parameters, vocabulary padding left out."""
        padding = self.config.pad_rows * (self.config.width + 1)  # each has a bias
        return sum(leaf.size for leaf in jax.tree.leaves(self.params)) - padding


def start_model(config: Config, workdir: Path) -> Model:
    """Return the checkpoint of `model.path`, with new tokens if the recipe adds some; or random weights with a new tokenizer.

    Raises:
      UserError: see `hf.load`, `extended_model` and `new_model`; or `data.seq_len` is more than the model has positions for.
    """
    new, section = None, ""
    if config.model.path and config.recipe in EXTENDING:
        loaded, new, section = extended_model(config, workdir)
    elif config.model.path:
        loaded = hf.load(config.model.path, seed=config.seed, pairs=selected_objective(config.model.pairs).pair_head)
    else:
        loaded = None
    if loaded:
        hf.log_notes(loaded.notes)
        encoder_config, params, tokenizer, hf_config = loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config
    else:
        (encoder_config, params, tokenizer, section), hf_config = new_model(config, workdir), {}
    training = encoder_config.with_dropout(config.model.dropout, config.model.attention_dropout)
    if not config.model.path:
        encoder_config = training  # a new model is exported with this run's dropout; a checkpoint keeps its own
    encoder_config.check_length(config.data.seq_len, "data.seq_len", config.model.path or "the model")
    return Model(encoder_config, training, params, tokenizer, hf_config, new, section)
