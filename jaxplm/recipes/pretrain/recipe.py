"""Run one of the recipes of masked language modelling: dapt, tapt, scratch, extend_vocab, exbert."""

from pathlib import Path

from jaxplm.config import Config
from jaxplm.engine import loop
from jaxplm.recipes.pretrain.job import Pretraining


def run(config: Config, workdir: Path, command: str) -> None:
    """Train a masked language model in `workdir`, or resume from its newest checkpoint; see `jaxplm.engine.loop.run`."""
    loop.run(config, workdir, command, Pretraining)
