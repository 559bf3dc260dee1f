"""Which job a run of a labelled task is: the whole model, or the head alone where the encoder does not change."""

from pathlib import Path

import jax

from jaxplm import nn
from jaxplm.config import Config
from jaxplm.engine import optim
from jaxplm.errors import UserError
from jaxplm.nn import paths
from jaxplm.recipes.finetune.head_on_features import HeadOnFeatures
from jaxplm.recipes.finetune.setup import set_up
from jaxplm.recipes.finetune.whole_model import WholeModel


def build_job(config: Config, workdir: Path, mesh: jax.sharding.Mesh, compute: nn.Compute, *, vectors: Path) -> WholeModel | HeadOnFeatures:
    """Return the job of a config.

    Args:
      vectors: the directory of a frozen encoder's vectors.

    Raises:
      UserError: a model, data or settings that cannot be used.
    """
    setup = set_up(config, workdir, mesh, compute)
    frozen = config.task.cache != "off" and encoder_is_frozen(setup.start.params, config.train.freeze)
    if config.task.cache == "on" and not frozen:
        raise UserError("task.cache=on needs a frozen encoder: give train.freeze=\"('encoder',)\"")
    return HeadOnFeatures(setup, vectors) if frozen else WholeModel(setup)


def encoder_is_frozen(params: nn.ParamTree, freeze: tuple[str, ...]) -> bool:
    """Return whether the patterns of `train.freeze` keep every parameter of the encoder as it is."""
    masks = paths.named(optim.frozen_layers(params, freeze)) if freeze else {}
    return bool(masks) and all(mask.all() for name, mask in masks.items() if name.startswith("encoder/"))
