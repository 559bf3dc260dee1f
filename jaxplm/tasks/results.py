"""What a model's logits on a set amount to: scores, and a prediction for every row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxplm.scores.classification import ClassScore


@dataclass(frozen=True)
class Result:
    """Scores and predictions of one set.

    Attributes:
      scores: by their usual names; empty where no row has a label.
      predictions: one for every row, in the order of the input.
      classes: precision, recall and F1 of each class, where labels are classes.
      entities: the same by type, where tags mark entities.
      confusion: [C + 1, C] of `scores.classification.confusion`, where there is one label per text or token.
    """

    scores: dict[str, float]
    predictions: Sequence[dict[str, Any]]
    classes: list[ClassScore] = field(default_factory=list)
    entities: list[ClassScore] = field(default_factory=list)
    confusion: np.ndarray | None = None


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes, in float64."""
    logits = logits.astype(np.float64)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def rounded(values: Any) -> list[Any]:
    """Return numbers as predictions.jsonl has them, with six decimals."""
    return np.round(values, 6).tolist()
