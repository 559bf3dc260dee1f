"""Regression: a number for each text or pair of texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.label_values import read_number
from jaxplm.data.labelled.targets import Targets
from jaxplm.scores import row_parts
from jaxplm.scores.metric import metrics_named
from jaxplm.scores.regression import regression_scores
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.kinds.kind import EvalSet, RowSet
from jaxplm.tasks.kinds.texts import PIPELINE, TextKind
from jaxplm.tasks.results import Result

if TYPE_CHECKING:
    from jaxplm.tasks.labelled import LabelledTask


class Regress(TextKind):
    """A number for each text or pair. A prediction has `label`, a number."""

    name = "regress"
    metrics = metrics_named("spearman", "pearson", "mse", "loss")
    most_outputs = 1
    hf_class = "SequenceClassification"
    problem_type = "regression"
    pipeline_tag = "text-classification"
    usage = PIPELINE.format(options="")

    def read_label(self, value: Any, where: str) -> float | None:
        return read_number(value, where)

    def num_outputs(self, labels: LabelSet) -> int:
        return 1

    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return [n] float32 numbers."""
        return Targets(_numbers(examples), examples.labelled.astype(np.float32))

    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        from jaxplm.tasks.kinds.regress_loss import SquaredError

        return SquaredError()

    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        known = eval_set.examples.labelled
        scores = regression_scores(_numbers(eval_set.examples)[known], logits[known, 0]) if known.any() else {}
        # The shortest decimal of a float32, so that scores can be recomputed: rounding would make ties among ranks.
        return Result(scores, [{"label": float(str(value))} for value in logits[:, 0].astype(np.float32)])

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        gold = _numbers(rows.examples).astype(np.float64)
        found = np.array([one["label"] for one in predictions], np.float32).astype(np.float64)
        match metric:
            case "mse":
                return row_parts.ratio((gold - found) ** 2)
            case "pearson":
                return row_parts.pearson(gold, found)
            case "spearman":
                return row_parts.spearman(gold, found)
        return None


def _numbers(examples: Examples) -> np.ndarray:
    """Return [n] float32 labels, 0 where a row has none."""
    return np.array([label or 0.0 for label in examples.labels], np.float32)
