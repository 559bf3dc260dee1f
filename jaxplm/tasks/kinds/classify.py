"""Classification: one label for each text or pair of texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import UNLABELLED, LabelSet, named_labels
from jaxplm.data.labelled.label_values import read_class
from jaxplm.data.labelled.targets import Targets
from jaxplm.scores import row_parts
from jaxplm.scores.classification import classification_scores, confusion, per_class
from jaxplm.scores.metric import metrics_named
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.kinds.kind import EvalSet, RowSet
from jaxplm.tasks.kinds.texts import PIPELINE, TextKind
from jaxplm.tasks.results import Result, rounded, softmax

if TYPE_CHECKING:
    from jaxplm.tasks.labelled import LabelledTask


class Classify(TextKind):
    """One label of C for each text or pair. A label is a name; numbers are taken as names.

    A prediction has `label`, a name, and `scores`, the probability of every name.
    """

    name = "classify"
    metrics = metrics_named("accuracy", "macro_f1", "micro_f1", "mcc", "loss")
    options = TextKind.options | {"class_weights", "label_smoothing"}
    named_outputs = True
    least_outputs = 2
    hf_class = "SequenceClassification"
    problem_type = "single_label_classification"
    pipeline_tag = "text-classification"
    usage = PIPELINE.format(options="")

    def read_label(self, value: Any, where: str) -> str | None:
        return read_class(value, where)

    def label_set(self, train: Examples, others: Iterable[Examples]) -> LabelSet:
        return named_labels(train, others, least=2)

    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return [n] int32 ids of the labels."""
        ids = labels.ids(examples.labels)
        return Targets(np.maximum(ids, 0), (ids >= 0).astype(np.float32))

    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        from jaxplm.tasks.kinds.classify_loss import CrossEntropy

        return CrossEntropy(task.label_smoothing, labels.balanced_weights() if task.class_weights == "balanced" else None)

    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        names = eval_set.labels.names
        chosen, gold = logits.argmax(-1), eval_set.labels.ids(eval_set.examples.labels)
        known = gold != UNLABELLED
        predictions = [{"label": names[i], "scores": dict(zip(names, rounded(shares), strict=True))}
                       for i, shares in zip(chosen.tolist(), softmax(logits), strict=True)]
        if not known.any():
            return Result({}, predictions)
        counts = confusion(gold[known], chosen[known], len(names))
        return Result(classification_scores(counts), predictions, per_class(counts, names), confusion=counts)

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        gold, found = rows.labels.ids(rows.examples.labels), rows.labels.ids(one["label"] for one in predictions)
        match metric:
            case "accuracy" | "micro_f1":
                return row_parts.ratio(gold == found)
            case "macro_f1":
                return row_parts.class_macro_f1(gold, found)
            case "mcc":
                return row_parts.mcc(gold, found)
        return None
