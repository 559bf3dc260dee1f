"""The labelled sets of a run as the encoder reads them, and which texts share the rows of each batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.task_batches import FixedRows, ShuffledRows, fixed_rows
from jaxplm.devices import sharding
from jaxplm.recipes.finetune.labelled_sets import LabelledSets

# Rows per batch without a gradient: enough to keep a device busy.
_EVALUATION_ROWS = 32


@dataclass(frozen=True, eq=False)
class EncodedSets:
    """All sets of a run; the mappings have 'train', 'validation', and 'test' if there is one.

    Attributes:
      encoded: what the encoder reads of each set.
      targets: what is to be learned from each set.
      train_rows: the rows of training steps.
      fixed_rows: the rows of each set with every unit once, all of one shape.
      evaluation_rows: B of those.
      pad_id: the token of empty places.
    """

    encoded: Mapping[str, Encoded]
    targets: Mapping[str, Targets]
    train_rows: ShuffledRows
    fixed_rows: Mapping[str, FixedRows]
    evaluation_rows: int
    pad_id: int


def encode_sets(config: Config, sets: LabelledSets, tokenizer: Any, pad_id: int, mesh: jax.sharding.Mesh) -> EncodedSets:
    """Tokenize the sets and plan their rows over the devices of `mesh`.

    Raises:
      UserError: windows that overlap by more than they can.
    """
    data = config.data
    examples = {"train": sets.train, **sets.evaluated}
    encoded, targets = {}, {}
    for name, given in examples.items():
        encoded[name] = sets.kind.encode(given, tokenizer, data.seq_len, config.task.overlap)
        targets[name] = sets.kind.targets(given, encoded[name], sets.labels)
    lengths = {name: one.lengths for name, one in encoded.items()}
    shards = sharding.row_shards(mesh)

    def local_rows(rows: int) -> np.ndarray:
        return sharding.local_rows(rows, mesh)

    train_rows = ShuffledRows(lengths["train"], config.train.batch_size, data.seq_len, seed=config.seed,
                              row_multiple=shards * config.train.accumulate, local_rows=local_rows)
    evaluation_rows = -(-_EVALUATION_ROWS // shards) * shards
    return EncodedSets(encoded, targets, train_rows, fixed_rows(lengths, evaluation_rows, data.seq_len, local_rows),
                       evaluation_rows, pad_id)
