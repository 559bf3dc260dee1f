"""Multi-label classification: any number of labels for each text or pair of texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import LabelSet, named_labels
from jaxplm.data.labelled.label_values import read_classes
from jaxplm.data.labelled.targets import Targets
from jaxplm.scores import row_parts
from jaxplm.scores.classification import multilabel_per_class, multilabel_scores
from jaxplm.scores.metric import metrics_named
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.kinds.kind import EvalSet, RowSet
from jaxplm.tasks.kinds.texts import PIPELINE, TextKind
from jaxplm.tasks.results import Result, rounded

if TYPE_CHECKING:
    from jaxplm.tasks.labelled import LabelledTask


class Multilabel(TextKind):
    """Any of C labels for each text or pair.

    A label is a list of names, or a string whose names are separated by `|`, or by `,` where it has no `|`. An empty list
    says that no name applies. Where every list has as many zeros and ones, each stands for a class. A prediction has `label`, a
    list of names, and `scores`, the probability of each name.
    """

    name = "multilabel"
    metrics = metrics_named("micro_f1", "macro_f1", "accuracy", "loss")
    options = TextKind.options | {"class_weights"}
    named_outputs = True
    hf_class = "SequenceClassification"
    problem_type = "multi_label_classification"
    pipeline_tag = "text-classification"
    usage = PIPELINE.format(options=", top_k=None")

    def read_label(self, value: Any, where: str) -> tuple[str, ...] | None:
        return read_classes(value, where)

    def label_set(self, train: Examples, others: Iterable[Examples]) -> LabelSet:
        return named_labels(train, others)

    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return [n, C] float32: 1 for each name that applies."""
        return Targets(_multi_hot(examples.labels, labels.names), examples.labelled.astype(np.float32))

    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        from jaxplm.tasks.kinds.multilabel_loss import BinaryCrossEntropy

        return BinaryCrossEntropy(labels.balanced_weights() if task.class_weights == "balanced" else None)

    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        names, given = eval_set.labels.names, eval_set.examples.labels
        chosen = logits > 0
        shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
        predictions = [{"label": [name for name, on in zip(names, row, strict=True) if on],
                        "scores": dict(zip(names, rounded(share), strict=True))}
                       for row, share in zip(chosen.tolist(), shares, strict=True)]
        known = eval_set.examples.labelled
        if not known.any():
            return Result({}, predictions)
        every = _every_name(names, given)
        gold = _multi_hot(given, every)[known] > 0
        return Result(multilabel_scores(gold, chosen[known]), predictions, multilabel_per_class(gold, chosen[known], list(every)))

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        names = _every_name(rows.labels.names, rows.examples.labels)
        gold, found = (_multi_hot(labels, names) > 0 for labels in (rows.examples.labels, [one["label"] for one in predictions]))
        match metric:
            case "accuracy":
                return row_parts.ratio((gold == found).all(1))
            case "micro_f1":
                return row_parts.ratio(2 * (gold & found).sum(1), gold.sum(1) + found.sum(1))
            case "macro_f1":
                return row_parts.macro_f1(gold & found, found, gold, absent=True)
        return None


def _every_name(names: tuple[str, ...], labels: list[Any]) -> tuple[str, ...]:
    """Return the names of the model, then those that it does not have, which nothing predicts."""
    return (*names, *sorted({name for label in labels for name in label or ()} - set(names)))


def _multi_hot(labels: list[Any], names: tuple[str, ...]) -> np.ndarray:
    """Return [n, C] float32: 1 for each name of a row; names that are not among the C are left out."""
    ids = {name: index for index, name in enumerate(names)}
    out = np.zeros((len(labels), len(names)), np.float32)
    for row, label in enumerate(labels):
        out[row, [ids[name] for name in label or () if name in ids]] = 1.0
    return out
