"""The model that a task's training starts from: a checkpoint's encoder with a new head."""

import logging
from dataclasses import dataclass

import jax
import numpy as np

from jaxplm import hf, nn
from jaxplm.config import Config
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.devices.compute import without_attention_dropout
from jaxplm.errors import UserError
from jaxplm.tasks.kinds import KINDS

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class StartModel:
    """A model before the first step.

    Attributes:
      loaded: the checkpoint as it was found, with the new head.
      encoder_config: of the encoder as it is trained here, with this run's dropout rates.
      params: of the `TaskModel`, NumPy float32 arrays.
    """

    loaded: hf.LoadedTask
    encoder_config: nn.EncoderConfig
    params: nn.ParamTree

    @property
    def head(self) -> nn.HeadConfig:
        return self.loaded.head


def start_model(config: Config, labels: LabelSet, compute: nn.Compute) -> StartModel:
    """Load `model.path` and put a head for these labels on it.

    Raises:
      UserError: a checkpoint that cannot be used, fewer positions than `data.seq_len`, or fewer blocks than
        `train.reinit_layers`.
    """
    task = config.task
    kind = KINDS[task.kind]
    head = kind.head_config(kind.num_outputs(labels), pooling=task.pooling, layers=task.layers, body=task.body,
                            body_width=task.body_width, dropout=task.dropout)
    loaded = hf.load_task_model(config.model.path, KINDS, head, seed=config.seed)
    if not config.model.random:
        hf.log_notes(loaded.notes)
    encoder_config = loaded.config
    encoder_config.check_length(config.data.seq_len, "data.seq_len", config.model.path)
    if config.model.random:
        log.info("model.random: random weights; of %s only the architecture and the tokenizer are taken", config.model.path)
        params = random_weights(encoder_config, loaded.head, config.seed)
    else:
        params = reinitialised(loaded.params, encoder_config, config.train.reinit_layers, config.seed)
    training = encoder_config.with_dropout(config.model.dropout, config.model.attention_dropout)
    return StartModel(loaded, without_attention_dropout(training, compute), params)


def random_weights(encoder_config: nn.EncoderConfig, head: nn.HeadConfig, seed: int) -> nn.ParamTree:
    """Return parameters of a `TaskModel` that was never trained, as NumPy arrays."""
    fresh = {"encoder": nn.random_params(encoder_config, seed)["encoder"], "head": nn.random_head_params(encoder_config, head, seed)}
    return jax.tree.map(np.array, fresh)


def reinitialised(params: nn.ParamTree, encoder_config: nn.EncoderConfig, layers: int, seed: int) -> nn.ParamTree:
    """Return the parameters with the top `layers` blocks drawn again (Zhang et al. 2021, "Revisiting few-sample BERT fine-tuning").

    Raises:
      UserError: the model has fewer blocks.
    """
    if not layers:
        return params
    if layers > encoder_config.layers:
        raise UserError(f"train.reinit_layers={layers}: the model has only {encoder_config.layers} blocks")
    fresh = nn.random_params(encoder_config, seed)["encoder"]
    return params | {"encoder": nn.map_blocks(
        lambda old, new: np.concatenate([np.asarray(old)[:-layers], np.asarray(new)[-layers:]]), params["encoder"], fresh)}
