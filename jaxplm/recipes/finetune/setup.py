"""What both jobs of a labelled task are built from: settings, data, model and loss."""

from dataclasses import dataclass
from pathlib import Path

import jax

from jaxplm import nn
from jaxplm.config import Config
from jaxplm.recipes.finetune.encoded_sets import EncodedSets, encode_sets
from jaxplm.recipes.finetune.labelled_sets import LabelledSets, read_sets
from jaxplm.recipes.finetune.start_model import StartModel, start_model
from jaxplm.scores.metric import Metric
from jaxplm.tasks.labelled import LabelledTask


@dataclass(frozen=True, eq=False)
class TaskSetup:
    """A labelled task, ready to be trained.

    Attributes:
      sets: the rows and labels that were read.
      encoded: the rows as the encoder reads them.
      start: the model before the first step.
      task: the loss.
      metric: of the validation set, by which the best checkpoint is chosen.
    """

    config: Config
    workdir: Path
    mesh: jax.sharding.Mesh
    compute: nn.Compute
    sets: LabelledSets
    encoded: EncodedSets
    start: StartModel
    task: LabelledTask
    metric: Metric

    @property
    def rows(self) -> int:
        """B, rows per step over all processes."""
        return self.encoded.train_rows.rows_per_step

    @property
    def fingerprint(self) -> str:
        """Identify all texts that were read, and the rows per step, which depend on the devices.

        A resumed run with other rows would be another run. The wording is in the config.json of existing runs.
        """
        return f"{self.sets.fingerprint} {self.rows} rows a step"


def set_up(config: Config, workdir: Path, mesh: jax.sharding.Mesh, compute: nn.Compute) -> TaskSetup:
    """Read the data, load the model, and encode the data for it.

    Raises:
      UserError: a model, data or settings that cannot be used.
    """
    sets = read_sets(config)
    metric = sets.kind.choose_metric(config.train.metric, sets.labels)
    start = start_model(config, sets.labels, compute)
    task = sets.kind.loss(config.task, sets.labels)
    encoded = encode_sets(config, sets, start.loaded.tokenizer, start.loaded.config.pad_id, mesh)
    return TaskSetup(config, workdir, mesh, compute, sets, encoded, start, task, metric)
