"""Run `configs/finetune.py` or `configs/feature_extraction.py`, for one seed or for several."""

import functools
from pathlib import Path

from jaxplm.config import Config
from jaxplm.engine import loop
from jaxplm.recipes.finetune import seeds
from jaxplm.recipes.finetune.builder import build_job


def run(config: Config, workdir: Path, command: str) -> None:
    """Train a task's model in `workdir`, once or once for each of `train.seeds`; see `jaxplm.engine.loop.run`."""
    make_job = functools.partial(build_job, vectors=workdir / "vectors")  # the same vectors for all seeds

    def one(config: Config, workdir: Path, command: str) -> None:
        loop.run(config, workdir, command, make_job)

    if config.train.seeds:
        seeds.run(config, workdir, command, one)
    else:
        one(config, workdir, command)
