"""Tagging: one label for each token of a sentence, such as the entities in it."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.label_set import UNKNOWN, LabelSet, named_labels
from jaxplm.data.labelled.label_values import read_class
from jaxplm.data.labelled.reading import DataFields
from jaxplm.data.labelled.tag_schemes import scheme_of_names
from jaxplm.data.labelled.tag_sets import settle_tags
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.word_map import WordMap
from jaxplm.data.sources.columns import Row
from jaxplm.scores import row_parts
from jaxplm.scores.classification import classification_scores, confusion, per_class
from jaxplm.scores.entities import entity_counts, entity_scores, per_type
from jaxplm.scores.metric import Metric, metrics_named
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.kinds.kind import EvalSet, RowSet
from jaxplm.tasks.kinds.words import WordKind
from jaxplm.tasks.results import Result, rounded, softmax

if TYPE_CHECKING:
    from jaxplm.tasks.labelled import LabelledTask

log = logging.getLogger("jaxplm")

# A warning is given where so large a share of the tagged characters can get no tag of a token.
_SHARED_SHARE = 0.01


class Tag(WordKind):
    """A tag for each token of a sentence.

    Tags that mark entities (B-, I-, and E-, S- with them) are scored by entity, all others by tag. IOB1 is converted to IOB2.
    A prediction has `label`, a tag for each token, and `scores`, the probability of each of these.
    """

    name = "tag"
    metrics = metrics_named("f1", "precision", "recall", "strict_f1", "accuracy", "macro_f1", "micro_f1", "loss")
    options = WordKind.options | {"class_weights", "label_smoothing"}
    reading_fields = "data.token_unit, data.tag_scheme, data.tokens or data.tags"
    named_outputs = True
    hf_class = "TokenClassification"
    pipeline_tag = "token-classification"
    # A word's label is that of its first token, in training too.
    usage = """from transformers import pipeline

tag = pipeline("token-classification", "path/to/this/directory", aggregation_strategy="first")
tag("a text")"""

    def read_label(self, value: Any, where: str) -> str | None:
        return read_class(value, where)

    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        """Read one row; tags that are numbers have the names in `data.label_names`."""
        example = super().read(row, data, where, number)
        names = {str(number): name for number, name in enumerate(data.label_names)}
        return example._replace(label=[names.get(tag, tag) for tag in example.label]) if names and example.label else example

    def settle_labels(self, examples: Examples) -> tuple[Examples, str]:
        """Find how the tags mark entities, and convert IOB1 to IOB2, and BIOES too where a token covers several characters."""
        return settle_tags(examples)

    def label_set(self, train: Examples, others: Iterable[Examples]) -> LabelSet:
        return named_labels(train, others, per_token=True)

    def labels_of_model(self, names: tuple[str, ...]) -> LabelSet:
        return LabelSet(names, np.zeros(len(names), np.int64), scheme=scheme_of_names(names))

    def metrics_for(self, labels: LabelSet) -> tuple[Metric, ...]:
        """Return entity-level scores for tags that mark entities, scores of classes for others."""
        if labels.scheme:
            return metrics_named("f1", "precision", "recall", "strict_f1", "accuracy", "loss")
        return metrics_named("accuracy", "macro_f1", "micro_f1", "loss")

    def describe_labels(self, labels: LabelSet) -> str:
        return f"tags {'with' if labels.scheme else 'without'} entities (B-, I-)"

    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return [T] int32 ids of the tags."""
        words = self.word_map(encoded)
        ids = np.full(len(words.token), UNKNOWN, np.int32)
        tagged = np.repeat(examples.labelled, np.diff(words.offsets))
        ids[tagged] = labels.ids(chain.from_iterable(tags for tags in examples.labels if tags is not None))
        targets = self.word_targets(encoded, ids, ids >= 0)
        if examples.characters:
            _warn_shared_tokens(examples, labels, words, targets.values)
        return targets

    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        from jaxplm.tasks.kinds.classify_loss import CrossEntropy

        return CrossEntropy(task.label_smoothing, labels.balanced_weights() if task.class_weights == "balanced" else None)

    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        words, names, scheme = self.word_map(eval_set.encoded), eval_set.labels.names, eval_set.labels.scheme
        tags = words.tags(names, logits.argmax(-1))
        certain = softmax(logits).max(-1)
        shares = np.where(words.token >= 0, certain[words.token] if len(certain) else 0.0, 1.0)
        bounds = words.offsets.tolist()
        predictions = [{"label": one, "scores": rounded(shares[begin:end])}
                       for one, begin, end in zip(tags, bounds[:-1], bounds[1:], strict=True)]
        pairs = [(gold, found) for gold, found in zip(eval_set.examples.labels, tags, strict=True) if gold is not None]
        if not pairs:
            return Result({}, predictions)
        gold, found = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if scheme:
            return Result(entity_scores(gold, found, scheme), predictions, entities=per_type(gold, found))
        counts = confusion(*_tag_ids(gold, found, names), len(names))
        return Result(classification_scores(counts), predictions, per_class(counts, names), confusion=counts)

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        gold, found = rows.examples.labels, [one["label"] for one in predictions]
        if metric == "accuracy" and rows.labels.scheme:
            right = [sum(a == b for a, b in zip(one, other, strict=True)) for one, other in zip(gold, found, strict=True)]
            return row_parts.ratio(right, [len(tags) for tags in gold])
        if rows.labels.scheme:
            return _entity_parts(metric, entity_counts(gold, found, rows.labels.scheme if metric == "strict_f1" else ""))
        if metric not in ("accuracy", "micro_f1", "macro_f1"):
            return None
        names = rows.labels.names
        known, given = _tag_ids(gold, found, names)
        known, given = (ids[:, None] == np.array([*range(len(names)), UNKNOWN]) for ids in (known, given))
        row = np.repeat(np.arange(len(gold)), [len(tags) for tags in gold])
        right, predicted, there = (_sums_by_row(row, part, len(gold)) for part in (known & given, given, known))
        if metric == "macro_f1":
            return row_parts.macro_f1(right, predicted, there, absent=False)
        return row_parts.ratio(right.sum(1), there.sum(1))


def _entity_parts(metric: str, counts: np.ndarray) -> RowParts | None:
    """Return the parts of a score of entities from [n, 3] counts of each row: right ones, gold ones, predicted ones."""
    right, gold, predicted = counts.T
    match metric:
        case "f1" | "strict_f1":
            return row_parts.ratio(2 * right, gold + predicted)
        case "precision":
            return row_parts.ratio(right, predicted)
        case "recall":
            return row_parts.ratio(right, gold)
    return None


def _sums_by_row(row: np.ndarray, part: np.ndarray, rows: int) -> np.ndarray:
    """Return [rows, C] sums of [W, C] over the words of each row; `row` is that of each word."""
    out = np.zeros((rows, part.shape[1]), np.int64)
    np.add.at(out, row, part)
    return out


def _tag_ids(gold: list[list[str]], found: list[list[str]], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of all words: [W] gold ones, `UNKNOWN` for tags that are no class, and [W] predicted ones."""
    ids = {name: i for i, name in enumerate(names)}
    known = np.array([ids.get(tag, UNKNOWN) for tags in gold for tag in tags], np.int64)
    # A word that shares the token of the word before has I- for B-, which need not be a class.
    all_ids = {f"I{name[1:]}": i for name, i in ids.items() if name[0] == "B"} | ids
    given = np.array([all_ids.get(tag, UNKNOWN) for tags in found for tag in tags], np.int64)
    # A word of no token is O; where that is no class, it counts as a wrong one.
    return known, np.where(given == UNKNOWN, (known + 1) % len(names), given)


def _warn_shared_tokens(examples: Examples, labels: LabelSet, words: WordMap, targets: np.ndarray) -> None:
    """Warn of tagged characters that cannot get their tag even from a perfect model, as those of 서울은 in one token."""
    best = words.tags(labels.names, targets)
    pairs = [pair for given, found in zip(examples.labels, best, strict=True) if given for pair in zip(given, found, strict=True)]
    tagged = sum(given != "O" or found != "O" for given, found in pairs)
    lost = sum(given != found for given, found in pairs)
    if lost > _SHARED_SHARE * tagged:
        log.warning("%s: %s of %s tagged characters share a token of the model with characters of another tag and cannot get theirs"
                    " (%.1f %%); a tokenizer with shorter tokens can tell them apart", examples.describe, f"{lost:,}", f"{tagged:,}",
                    100 * lost / tagged)
