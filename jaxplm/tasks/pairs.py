"""Masked language modelling on pairs of segments, and with it whether they follow each other.

Next sentence (Devlin et al. 2019) or sentence order (Lan et al. 2020): the data decide, see `jaxplm.data.mlm.sentence_pairs`.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np

from jaxplm.data.batch import PairBatch
from jaxplm.nn import Compute, MaskedLM
from jaxplm.scores.sums import mlm_metrics
from jaxplm.tasks.mlm import cross_entropy, mlm_sums


class MaskedPairs:
    """Minimises the mean MLM loss plus the mean loss of the pairs, as BERT's pre-training does; see `jaxplm.tasks.Task`.

    `loss`, `perplexity` and `accuracy` are those of the masked tokens alone, so that they compare with runs without pairs.

    Args:
      characters: as in `jaxplm.tasks.mlm.MaskedLanguageModelling`.
    """

    def __init__(self, characters: np.ndarray | None = None) -> None:
        self._characters = characters

    def weights_of(self, batch: PairBatch) -> dict[str, jax.Array]:
        return {"loss": batch.mlm_weights.sum(), "pair_loss": batch.pair_weights.sum()}

    def sums(self, model: MaskedLM, batch: PairBatch, *, key: jax.Array | None, compute: Compute) -> dict[str, jax.Array]:
        states, pairs = model.masked_states_and_pair_logits(
            batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.mlm_positions, key=key,
            compute=dataclasses.replace(compute, max_segments_per_row=1))
        losses, correct = cross_entropy(pairs, batch.pair_labels)
        return mlm_sums(model, states, batch, self._characters, compute) | {
            "pair_loss": (losses * batch.pair_weights).sum(),
            "pair_correct": (correct * batch.pair_weights).sum(),
            "pair_weight": batch.pair_weights.sum(),
        }

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        pairs = sums["pair_weight"]
        return mlm_metrics(sums) | {
            "pair_loss": sums["pair_loss"] / pairs if pairs else math.nan,
            "pair_accuracy": sums["pair_correct"] / pairs if pairs else math.nan,
        }
