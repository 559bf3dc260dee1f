"""Masked language modelling on pairs of segments, together with a classification of each pair.

The pair is classified as in next sentence prediction (Devlin et al. 2019) or sentence order prediction (Lan et al. 2020).
Which of the two it is depends on the data only, see `jaxplm.data.mlm.sentence_pairs`.
"""

import math
from collections.abc import Mapping

import jax

from jaxplm.data.batch import PairBatch
from jaxplm.nn import Compute, MaskedLM
from jaxplm.scores.sums import mlm_metrics
from jaxplm.tasks.mlm import MaskedLanguageModelling, cross_entropy


class MaskedPairs(MaskedLanguageModelling):
    """Minimise the mean MLM loss plus the mean loss per pair, as BERT's pre-training does; implements `jaxplm.tasks.Task`.

    `loss`, `perplexity` and `accuracy` are those of the masked tokens only, so they are comparable with runs without pairs.
    The arguments are those of `MaskedLanguageModelling`; `max_segments_per_row` has no effect, because a row holds one pair.
    """

    def weights_of(self, batch: PairBatch) -> dict[str, jax.Array]:
        return {"loss": batch.mlm_weights.sum(), "pair_loss": batch.pair_weights.sum()}

    def sums(self, model: MaskedLM, batch: PairBatch, *, key: jax.Array | None, compute: Compute) -> dict[str, jax.Array]:
        states_BKD, pair_logits_BC = model.masked_states_and_pair_logits(
            batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.mlm_positions, key=key, compute=compute)
        losses, correct = cross_entropy(pair_logits_BC, batch.pair_labels)
        return self.mlm_sums(model, states_BKD, batch, compute) | {
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
