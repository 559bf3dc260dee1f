"""Downstream tasks on the host: from a set's logits to its scores and to a prediction for every row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxplm.data.labelled.examples import Answers, Examples
from jaxplm.data.labelled.label_set import UNKNOWN, UNLABELLED, LabelSet
from jaxplm.data.labelled.units import Units
from jaxplm.scores import classification, entities
from jaxplm.scores.answers import Window, best_span
from jaxplm.scores.classification import ClassScore
from jaxplm.scores.regression import regression_scores
from jaxplm.scores.squad import qa_scores


@dataclass(frozen=True)
class Reading:
    """How a set is looked at: its rows, the labels of the model, and what an answer may be.

    Args:
      max_answer: tokens of an answer, at most (qa).
      rules: how answers are compared (qa): 'squad' or 'korquad'.
      may_lack: questions may have no answer, as in SQuAD 2.0 (qa).
    """

    examples: Examples
    units: Units
    labels: LabelSet
    max_answer: int = 30
    rules: str = "squad"
    may_lack: bool = False


@dataclass(frozen=True)
class Result:
    """What a model's logits amount to.

    Attributes:
      scores: by their usual names; empty where no row has a label.
      predictions: one for every row, in the order of the input; see `results`.
      classes: of single-label and multi-label tasks, and of plain tags.
      entities: by type, where tags mark entities.
      confusion: [C + 1, C] of `scores.classification.confusion`, where there is one label a text.
    """

    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    classes: list[ClassScore] = field(default_factory=list)
    entities: list[ClassScore] = field(default_factory=list)
    confusion: np.ndarray | None = None


def results(reading: Reading, logits: np.ndarray) -> Result:
    """Scores and predictions.

    A prediction is {'row', 'label', ...}: `row` counts the rows of the input from 0. classify: `label` a name, `scores`
    the probability of every name; multilabel: `label` a list, `scores` each name's own probability; regress: `label` a
    number; tag: `label` a tag for each token, `scores` the probability of each of these; qa: `label` the answer's text,
    `start` its first character in the context (-1: none), `scores` the sum of its two logits.

    Args:
      logits: [n, C] of units, or [T, C] of tokens (tag, qa).
    """
    found = _KINDS[reading.examples.kind](reading, logits)
    rows = reading.examples.rows.tolist()
    return Result(found.scores, [{"row": row} | one for row, one in zip(rows, found.predictions, strict=True)], found.classes,
                  found.entities, found.confusion)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _rounded(values: Any) -> list[float]:
    return np.round(values, 6).tolist()


def _classify(reading: Reading, logits: np.ndarray) -> Result:
    names = reading.labels.names
    chosen, gold = logits.argmax(-1), reading.units.labels
    known = gold != UNLABELLED
    predictions = [{"label": names[i], "scores": dict(zip(names, _rounded(shares), strict=True))}
                   for i, shares in zip(chosen.tolist(), _softmax(logits.astype(np.float64)), strict=True)]
    if not known.any():
        return Result({}, predictions)
    counts = classification.confusion(gold[known], chosen[known], len(names))
    return Result(classification.classification_scores(counts), predictions, classification.per_class(counts, names), confusion=counts)


def _multilabel(reading: Reading, logits: np.ndarray) -> Result:
    names, given = reading.labels.names, reading.examples.labels
    chosen = logits > 0
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    predictions = [{"label": [name for name, on in zip(names, row, strict=True) if on],
                    "scores": dict(zip(names, _rounded(share), strict=True))}
                   for row, share in zip(chosen.tolist(), shares, strict=True)]
    known = reading.examples.labelled
    if not known.any():
        return Result({}, predictions)
    # Labels that training never saw are columns that nothing predicts.
    unseen = sorted({name for label in given for name in label or ()} - set(names))
    extra = np.array([[name in (label or ()) for name in unseen] for label in given], bool).reshape(len(given), len(unseen))
    gold = np.concatenate([reading.units.labels > 0, extra], 1)[known]
    return Result(classification.multilabel_scores(gold, chosen[known]), predictions,
                  classification.multilabel_per_class(gold, chosen[known], [*names, *unseen]))


def _regress(reading: Reading, logits: np.ndarray) -> Result:
    known = reading.examples.labelled
    scores = regression_scores(reading.units.labels[known], logits[known, 0]) if known.any() else {}
    return Result(scores, [{"label": value} for value in _rounded(logits[:, 0])])


def _tag(reading: Reading, logits: np.ndarray) -> Result:
    words, names = reading.units.words, reading.labels.names
    assert words is not None
    tags = words.tags(names, logits.argmax(-1))
    certain = _softmax(logits.astype(np.float64)).max(-1)
    shares = np.where(words.token >= 0, certain[words.token] if len(certain) else 0.0, 1.0)
    bounds = words.offsets.tolist()
    predictions = [{"label": one, "scores": _rounded(shares[begin:end])}
                   for one, begin, end in zip(tags, bounds[:-1], bounds[1:], strict=True)]
    pairs = [(gold, found) for gold, found in zip(reading.examples.labels, tags, strict=True) if gold is not None]
    if not pairs:
        return Result({}, predictions)
    gold, found = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if scheme := reading.labels.scheme:
        return Result(entities.entity_scores(gold, found, scheme), predictions, entities=entities.per_type(gold, found, scheme))
    counts = classification.confusion(*_tag_ids(gold, found, names), len(names))
    return Result(classification.classification_scores(counts), predictions, classification.per_class(counts, names), confusion=counts)


def _tag_ids(gold: list[list[str]], found: list[list[str]], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The classes of all words, [W] gold ones, `UNKNOWN` for tags that are none, and [W] predicted ones."""
    ids = {name: i for i, name in enumerate(names)}
    known = np.array([ids.get(tag, UNKNOWN) for tags in gold for tag in tags], np.int64)
    # A word that goes on with the token of another has I- for B-, which need not be a class.
    all_ids = {f"I{name[1:]}": i for name, i in ids.items() if name[0] == "B"} | ids
    given = np.array([all_ids.get(tag, UNKNOWN) for tags in found for tag in tags], np.int64)
    # A word of no token is O; where that is no class, it counts as a wrong one.
    return known, np.where(given == UNKNOWN, (known + 1) % len(names), given)


def _qa(reading: Reading, logits: np.ndarray) -> Result:
    units, examples = reading.units, reading.examples
    assert units.chars is not None and examples.pairs is not None and examples.ids is not None
    bounds = np.searchsorted(units.example, np.arange(len(examples) + 1)).tolist()
    predictions: list[dict[str, Any]] = []
    for context, begin, end in zip(examples.pairs, bounds[:-1], bounds[1:], strict=True):
        windows = [_window(units, logits, unit) for unit in range(begin, end)]
        span = best_span(windows, reading.max_answer, 0.0 if reading.may_lack else None)
        if span is None:
            predictions.append({"label": "", "start": -1, "scores": None})
            continue
        at = int(units.offsets[begin + span.window])
        start, stop = int(units.chars[at + span.first, 0]), int(units.chars[at + span.last, 1])
        predictions.append({"label": context[start:stop], "start": start, "scores": round(span.score, 6)})
    # Numbered by row: the ids of a file are its own, and need not differ.
    references = {str(i): list(label.texts) for i, label in enumerate(examples.labels) if isinstance(label, Answers)}
    scores = qa_scores({key: predictions[int(key)]["label"] for key in references}, references, reading.rules) if references else {}
    return Result(scores, [{"id": key} | one for key, one in zip(examples.ids, predictions, strict=True)])


def _window(units: Units, logits: np.ndarray, unit: int) -> Window:
    begin, end = int(units.offsets[unit]), int(units.offsets[unit + 1])
    assert units.chars is not None
    context = np.flatnonzero(units.chars[begin:end, 0] >= 0)
    edges = (int(context[0]), int(context[-1]) + 1) if context.size else (0, 0)
    return Window(logits[begin:end, 0], logits[begin:end, 1], edges)


_KINDS: dict[str, Callable[[Reading, np.ndarray], Result]] = {
    "classify": _classify, "multilabel": _multilabel, "regress": _regress, "tag": _tag, "qa": _qa,
}
