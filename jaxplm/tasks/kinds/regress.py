"""Regression: a number for each text or pair of texts."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.label_values import read_number
from jaxplm.data.labelled.targets import Targets
from jaxplm.scores.metric import metrics_named
from jaxplm.scores.regression import regression_scores
from jaxplm.tasks.kinds.kind import EvalSet
from jaxplm.tasks.kinds.texts import PIPELINE, TextKind
from jaxplm.tasks.results import Result, rounded

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
        return Result(scores, [{"label": value} for value in rounded(logits[:, 0])])


def _numbers(examples: Examples) -> np.ndarray:
    """Return [n] float32 labels, 0 where a row has none."""
    return np.array([label or 0.0 for label in examples.labels], np.float32)
