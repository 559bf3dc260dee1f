"""The labels of a task: their names in a fixed order, how often each occurs, and what each row's label is in numbers."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from jaxplm.data.labelled.examples import Examples
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

UNKNOWN = -1  # the id of a label that is not in the set
UNLABELLED = -2  # stands for the id where a row has no label
_SHOWN = 8  # names a message lists


@dataclass(frozen=True, eq=False)
class LabelSet:
    """C labels.

    Attributes:
      kind: of the task.
      names: C names: sorted, numbers by their value; none for regress and qa.
      counts: [C] int64, how often each occurs in training (tag: tokens); zeros where that is not known.
      total: the rows (tag: tokens) counted.
      scheme: tag: how the tags mark entities, 'IOB2' or 'BIOES'; '' for plain tags and other tasks.
    """

    kind: str
    names: tuple[str, ...]
    counts: np.ndarray
    total: int = 0
    scheme: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def outputs(self) -> int:
        """Width of the model's output: C; 1 for regress; 2, for first and last token, for qa."""
        return {"regress": 1, "qa": 2}.get(self.kind, len(self.names))

    @property
    def id2label(self) -> dict[int, str]:
        """As in the export's config.json; transformers' placeholder names where the labels have none."""
        return dict(enumerate(self.names or [f"LABEL_{i}" for i in range(self.outputs)]))

    def index(self, name: str) -> int:
        """The id of a label, `UNKNOWN` if it is not in the set."""
        return _index(self.names).get(name, UNKNOWN)

    def encode(self, labels: list[Any]) -> np.ndarray:
        """Labels of examples as numbers, by kind of task.

        Args:
          labels: of `Examples.labels`; None where a row has none.

        Returns:
          classify [n] int32: ids, `UNKNOWN` or `UNLABELLED`; multilabel [n, C] float32: 1 for each that applies; regress
          [n] float32. Rows without a label are zeros in the last two. tag: ids of all tags, one list after the other.
        """
        ids = _index(self.names)
        if self.kind == "classify":
            return np.array([UNLABELLED if name is None else ids.get(name, UNKNOWN) for name in labels], np.int32)
        if self.kind == "regress":
            return np.array([label or 0.0 for label in labels], np.float32)
        if self.kind == "tag":
            return np.array([ids.get(tag, UNKNOWN) for tags in labels for tag in tags or ()], np.int32)
        if self.kind != "multilabel":
            raise ValueError(f"{self.kind} has no labels with names")
        out = np.zeros((len(labels), len(self.names)), np.float32)
        for row, names in enumerate(labels):
            known = [ids[name] for name in names or () if name in ids]
            out[row, known] = 1.0
        return out

    def balanced_weights(self) -> np.ndarray:
        """[C] float32: n / (C × count), with which every class counts alike in a sum over n rows (King & Zeng 2001).

        Raises:
          UserError: the counts are not known, as where the labels come from a checkpoint.
        """
        if not self.counts.all():
            raise UserError("task.class_weights=balanced needs the training data, which say how often each label occurs")
        return (self.total / (len(self.names) * self.counts)).astype(np.float32)


def _index(names: tuple[str, ...]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def label_set(train: Examples, *others: Examples) -> LabelSet:
    """The labels that the training rows have, in a stable order; a warning names those that only one of the sets has.

    Args:
      train: the rows that are trained on; those without a label are passed over.
      others: validation and test rows. Labels that training lacks get the id `UNKNOWN`: no model can predict them,
        so such rows count as errors.

    Raises:
      UserError: fewer than two classes (classify), or no label at all (multilabel, tag).
    """
    kind = train.kind
    if kind in ("regress", "qa"):
        return LabelSet(kind, (), np.zeros(0, np.int64), len(train))
    counted = _count(train)
    names = sorted(counted, key=_order)
    if not names or (kind == "classify" and len(names) < 2):
        raise UserError(f"{train.describe}: a task needs two or more labels, its rows have {'only ' + repr(names[0]) if names else 'none'}"
                        " (see data.label, and data.max_rows where the file is sorted by label)")
    for other in others:
        theirs = _count(other)
        if new := sorted(theirs.keys() - counted.keys(), key=_order):
            log.warning("%s: %d %s with labels that training never saw, which count as errors: %s", other.describe,
                        sum(theirs[name] for name in new), "tags" if kind == "tag" else "rows", _listed(new))
        if theirs and (lost := sorted(counted.keys() - theirs.keys(), key=_order)):
            log.warning("%s: labels of the training data that do not occur here: %s", other.describe, _listed(lost))
    counts = np.array([counted[name] for name in names], np.int64)
    total = sum(counted.values()) if kind == "tag" else int(train.labelled.sum())
    return LabelSet(kind, tuple(names), counts, total, train.scheme)


def labels_of_checkpoint(kind: str, id2label: dict[int, str]) -> LabelSet:
    """The labels that a fine-tuned model was exported with; how often each occurred is not known.

    Raises:
      UserError: the ids are not 0 to C - 1.
    """
    if sorted(id2label) != list(range(len(id2label))):
        raise UserError(f"the checkpoint's id2label has the ids {sorted(id2label)[:_SHOWN]}, not 0 to {len(id2label) - 1}")
    if kind in ("regress", "qa"):
        return LabelSet(kind, (), np.zeros(0, np.int64))
    names = tuple(id2label[index] for index in range(len(id2label)))
    scheme = ""
    if kind == "tag" and "O" in names and any(name.startswith(("B-", "I-")) or name in ("B", "I") for name in names):
        scheme = "BIOES" if any(name[:2] in ("S-", "E-", "S", "E") for name in names) else "IOB2"
    return LabelSet(kind, names, np.zeros(len(names), np.int64), scheme=scheme)


def warn_unknown(labels: LabelSet, examples: Examples) -> None:
    """One warning that names the labels of `examples` that are not in the set."""
    if labels.names:
        theirs = _count(examples)
        if new := sorted(theirs.keys() - set(labels.names), key=_order):
            log.warning("%s: %d labels that the model does not have, which count as errors: %s", examples.describe,
                        sum(theirs[name] for name in new), _listed(new))


def _count(examples: Examples) -> Counter[str]:
    if examples.kind == "classify":
        return Counter(label for label in examples.labels if label is not None)
    return Counter(chain.from_iterable(label for label in examples.labels if label is not None))


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by their value, before names in the order of their characters."""
    try:
        value = float(name)
    except ValueError:
        value = math.nan
    return (False, value, name) if math.isfinite(value) else (True, 0.0, name)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
