"""What every kind of labelled task says about itself; everything else that depends on the kind asks the kind."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.reading import Columns, DataFields
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.sources.columns import Row
from jaxplm.errors import UserError
from jaxplm.scores.metric import Metric
from jaxplm.scores.row_parts import RowParts
from jaxplm.tasks.results import Result

if TYPE_CHECKING:  # kinds are listed before JAX is imported
    from jaxplm.nn import HeadConfig
    from jaxplm.tasks.labelled import LabelledTask

# Fields of `config.Task` that some kinds do not read: their value where they are off.
_OFF = {"pooling": "cls", "body": "", "class_weights": "none", "label_smoothing": 0.0}


@dataclasses.dataclass(frozen=True, eq=False)
class EvalSet:
    """One set as a model sees it.

    Attributes:
      kind: of the task.
      examples: its rows.
      encoded: the rows as the encoder reads them.
      labels: of the model.
      task: the settings that scores depend on.
      has_unanswerable: some questions have no answer, so that a model may say so.
    """

    kind: "TaskKind"
    examples: Examples
    encoded: Encoded
    labels: LabelSet
    task: Task = dataclasses.field(default_factory=Task)
    has_unanswerable: bool = False


class RowSet(NamedTuple):
    """Rows with labels, and what scores them: that part of an `EvalSet` which needs no tokenizer."""

    examples: Examples
    labels: LabelSet
    task: Task


class TaskKind(ABC):
    """One kind of labelled task. Methods come in the order in which a run calls them.

    `jaxplm.tasks.kinds.texts.TextKind` and `jaxplm.tasks.kinds.words.WordKind` have most of the methods for tasks over texts and
    over tokens.

    Attributes:
      name: the value of `task.kind`.
      metrics: the scores of the kind; the first one picks the best checkpoint where `train.metric` is empty.
      options: the fields of `config.Task` that the kind reads, besides those that every kind reads.
      per_token: whether the head gives logits for every token; False: it pools each unit into one vector first.
      token_dropout: whether a head that looks at every token has dropout.
      named_outputs: whether each of the model's outputs has a name, that of a label.
      least_outputs, most_outputs: bounds on the number of outputs; None: no bound.
      hf_class: what follows "For" in the name of transformers' class that has the same head; "" if there is none.
      problem_type: `problem_type` in the config.json of that class; None where it has none.
      pipeline_tag: the hub's name for what a model of this kind does; "" if it has none.
      usage: Python code that loads a model of `hf_class` from "path/to/this/directory" and calls it, for the model card.
    """

    name: str
    metrics: tuple[Metric, ...]
    options: frozenset[str] = frozenset()
    per_token: bool = False
    token_dropout: bool = True
    named_outputs: bool = False
    least_outputs: int = 1
    most_outputs: int | None = None
    hf_class: str = ""
    problem_type: str | None = None
    pipeline_tag: str = ""
    usage: str = ""

    # ---------------------------------------------------------------- settings

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the scores, as in metrics.jsonl."""
        return tuple(metric.name for metric in self.metrics)

    def metric(self, name: str) -> Metric:
        """Return the metric of a name, one of `metric_names`."""
        return next(metric for metric in self.metrics if metric.name == name)

    def check(self, task: Task, metric: str = "") -> None:
        """Check the settings of a task that can be judged before any data is read.

        Args:
          task: settings of the task.
          metric: `train.metric`; "" for the kind's usual one.

        Raises:
          UserError: an option that the kind does not read, or a metric that it does not have.
        """
        if metric and metric not in self.metric_names:
            raise UserError(f"train.metric={metric!r}: task.kind={self.name} has {', '.join(self.metric_names)}")
        for option, off in _OFF.items():
            value = getattr(task, option)
            if value != off and option not in self.options:
                raise UserError(f"task.{option}={value!r}: task.kind={self.name} {self._why_not(option)}; leave it at {off!r}")

    def _why_not(self, option: str) -> str:
        """Return the reason why the kind does not read an option, for a message."""
        if option == "pooling" and self.per_token:
            return "looks at every token and pools nothing"
        if option == "body" and not self.per_token:
            return "has one vector per text, and a body reads one per token"
        return "has no classes" if option == "class_weights" else "does not use it"

    # ---------------------------------------------------------------- rows and labels

    @abstractmethod
    def columns(self, data: DataFields) -> Columns:
        """Return the columns that the kind reads."""

    @abstractmethod
    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        """Read one row; see `jaxplm.data.labelled.reading.RowReader`."""

    def settle(self, examples: Examples, reading: TaggedReading) -> Examples:
        """Return the examples as the kind uses them, after a look at all of them together.

        Args:
          reading: how tagged sentences are read, as far as it is decided.
        """
        del reading
        return examples

    def group_keys(self, examples: Examples) -> list[str]:
        """Return a key for each row. Rows of the same key are held out together, so that no text is in two sets."""
        pairs = examples.pairs or [""] * len(examples)
        return [f"{text}\n{pair}" for text, pair in zip(examples.texts, pairs, strict=True)]

    def has_unanswerable(self, examples: Examples) -> bool:
        """Return whether some of the rows are questions that are known to have no answer."""
        del examples
        return False

    def label_set(self, train: Examples, others: Iterable[Examples]) -> LabelSet:
        """Return the labels of the training rows; warn of labels that `others` alone have.

        Raises:
          UserError: too few labels.
        """
        del others
        return LabelSet(total=len(train))

    def labels_of_model(self, names: tuple[str, ...]) -> LabelSet:
        """Return the labels of a model that was trained before, from the names of its outputs."""
        return LabelSet(names if self.named_outputs else ())

    def num_outputs(self, labels: LabelSet) -> int:
        """Return the width of the model's output: one number per label."""
        return len(labels)

    def metrics_for(self, labels: LabelSet) -> tuple[Metric, ...]:
        """Return the scores that there are with these labels, the usual one first."""
        del labels
        return self.metrics

    def describe_labels(self, labels: LabelSet) -> str:
        """Return how a message calls labels like these."""
        del labels
        return f"labels of task.kind={self.name}"

    def choose_metric(self, name: str, labels: LabelSet) -> Metric:
        """Return the metric that picks the best checkpoint: `name`, or the usual one of these labels for "".

        Raises:
          UserError: there is no such score with these labels.
        """
        metrics = {metric.name: metric for metric in self.metrics_for(labels)}
        if name and name not in metrics:
            raise UserError(f"train.metric={name!r}: {self.describe_labels(labels)} have {', '.join(metrics)}")
        return metrics[name] if name else next(iter(metrics.values()))

    # ---------------------------------------------------------------- what the model reads and learns

    @abstractmethod
    def encode(self, examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> Encoded:
        """Tokenize examples.

        Args:
          tokenizer: a fast transformers tokenizer; it is not changed.
          seq_len: tokens per unit, special ones included, at most.
          overlap: tokens that neighbouring windows of a long text share.

        Raises:
          UserError: the overlap is too large for windows of `seq_len` tokens.
        """

    @abstractmethod
    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return what is to be learned from encoded examples."""

    def head_config(self, outputs: int, **settings: Any) -> "HeadConfig":
        """Return the head of a model of this kind.

        Args:
          outputs: C, the width of its output.
          settings: further fields of `HeadConfig`.

        Raises:
          ValueError: a number of outputs or a combination of settings that the kind does not have.
        """
        from jaxplm.nn import HeadConfig

        if outputs < self.least_outputs or (self.most_outputs is not None and outputs > self.most_outputs):
            raise ValueError(f"{self.name} with {outputs} outputs")
        if settings.get("body") and "body" not in self.options:
            raise ValueError(f"{self.name} has no body")
        return HeadConfig(self.name, outputs, per_token=self.per_token, token_dropout=self.token_dropout, **settings)

    @abstractmethod
    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        """Return the loss. Import its module in here: it may import JAX, and the kind's own module may not.

        Raises:
          UserError: `task.class_weights` without counts of the labels.
        """

    # ---------------------------------------------------------------- what the model says

    @abstractmethod
    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        """Return scores and predictions.

        A prediction is a dict, for predictions.jsonl, with `label`: what the model says of the row.

        Args:
          eval_set: n rows; their units have T tokens.
          logits: [units, C] float32, or [T, C] with `per_token`.
        """

    def results(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        """Return what `score` does, with `row` first in each prediction: the number of the row in the input, from 0."""
        result = self.score(eval_set, logits)
        rows = eval_set.examples.rows.tolist()
        numbered: Sequence[dict[str, Any]] = [{"row": row} | one for row, one in zip(rows, result.predictions, strict=True)]
        return dataclasses.replace(result, predictions=numbered)

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        """Return what a score of `score` is made of, row by row, from predictions as `score` gives them.

        None where the kind does not say it, as of the loss: differences of such a score have no interval.

        Args:
          metric: one of `metric_names`.
          rows: those that have a label, one or more.
          predictions: of these rows.
        """
        del metric, rows, predictions
        return None
