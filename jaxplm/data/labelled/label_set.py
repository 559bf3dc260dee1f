"""The labels of a task: their names in a fixed order, and how often each occurs."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_forms import listed
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

UNKNOWN = -1  # the id of a label that is not in the set
UNLABELLED = -2  # stands for the id where a row has no label


@dataclass(frozen=True, eq=False)
class LabelSet:
    """The labels that a model can give.

    Attributes:
      names: C names: sorted, numbers by their value; () where labels have no names, as numbers and answers have none.
      counts: [C] int64, how often each occurs in training (labels of tokens: tokens); zeros where that is not known.
      total: the rows (labels of tokens: tokens) counted.
      scheme: how tags mark entities, 'IOB2' or 'BIOES'; '' for all other labels.
    """

    names: tuple[str, ...] = ()
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    total: int = 0
    scheme: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, names: Iterable[str | None]) -> np.ndarray:
        """Return [n] int32 ids of n names: `UNKNOWN` for a name that is not in the set, `UNLABELLED` for None."""
        ids: dict[Any, int] = {name: index for index, name in enumerate(self.names)}
        return np.array([UNLABELLED if name is None else ids.get(name, UNKNOWN) for name in names], np.int32)

    def balanced_weights(self) -> np.ndarray:
        """Return [C] float32: n / (C × count), with which every class counts alike in a sum over n rows (King & Zeng 2001).

        Raises:
          UserError: the counts are not known, as where the labels come from a checkpoint.
        """
        if not self.total:
            raise UserError("task.class_weights=balanced needs the training data, which say how often each label occurs")
        return (self.total / (len(self.names) * np.maximum(self.counts, 1))).astype(np.float32)


def named_labels(train: Examples, others: Iterable[Examples], *, least: int = 1, per_token: bool = False) -> LabelSet:
    """Return the names that the training rows have, in a stable order; warn of names that only one of the sets has.

    Args:
      train: the rows that are trained on; those without a label are left out. A label is a name or a sequence of names.
      others: validation and test rows. Names that training lacks get the id `UNKNOWN`: no model can predict them,
        so such rows count as errors.
      least: the number of different names that the task needs.
      per_token: a label is a name for each token, and tokens are counted.

    Raises:
      UserError: fewer names than `least`.
    """
    counted = _count(train)
    names = list(train.classes) or sorted(counted, key=_order)
    if len(names) < least:
        raise UserError(f"{train.describe}: a task needs two or more labels, its rows have {'only ' + repr(names[0]) if names else 'none'}"
                        " (see data.label, and data.max_rows where the file is sorted by label)")
    for other in others:
        theirs = _count(other)
        if new := sorted(theirs.keys() - counted.keys(), key=_order):
            log.warning("%s: %d %s with labels that training never saw, which count as errors: %s", other.describe,
                        sum(theirs[name] for name in new), "tags" if per_token else "rows", listed(new, names))
        if theirs and (lost := sorted(counted.keys() - theirs.keys(), key=_order)):
            log.warning("%s: labels of the training data that do not occur here: %s", other.describe, listed(lost))
    counts = np.array([counted[name] for name in names], np.int64)
    return LabelSet(tuple(names), counts, sum(counted.values()) if per_token else int(train.labelled.sum()), train.scheme)


def warn_unknown(labels: LabelSet, examples: Examples) -> None:
    """Log one warning that lists the names in `examples` that are not in the set."""
    if labels.names:
        theirs = _count(examples)
        if new := sorted(theirs.keys() - set(labels.names), key=_order):
            log.warning("%s: %d labels that the model does not have, which count as errors: %s", examples.describe,
                        sum(theirs[name] for name in new), listed(new, labels.names))


def _count(examples: Examples) -> Counter[str]:
    counts: Counter[str] = Counter()
    for label in examples.labels:
        if label is not None:
            counts.update((label,) if isinstance(label, str) else label)
    return counts


def _order(name: str) -> tuple[bool, float, str]:
    """Return a sort key: numbers by their value, before names in the order of their characters."""
    try:
        value = float(name)
    except ValueError:
        value = math.nan
    return (False, value, name) if math.isfinite(value) else (True, 0.0, name)
