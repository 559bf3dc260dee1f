"""What every kind of labelled task has to say about itself."""

from abc import ABC
from typing import ClassVar

from jaxplm.config import Task
from jaxplm.errors import UserError

# Fields of `config.Task` that some kinds have no use for: their value where they are off.
_OFF = {"pooling": "cls", "body": "", "class_weights": "none", "label_smoothing": 0.0}


class TaskKind(ABC):
    """One kind of labelled task.

    Attributes:
      name: the value of `task.kind`.
      metric_names: the scores of the kind, as in metrics.jsonl; the first one picks the best checkpoint where `train.metric`
        is empty.
      per_token: whether the head gives logits for every token; False: it pools each text into one vector first.
      options: the fields of `config.Task` that the kind reads.
      hf_class: what follows "For" in the name of transformers' class that has the same head; "" if there is none.
      problem_type: `problem_type` in the config.json of that class; None where it has none.
    """

    name: ClassVar[str]
    metric_names: ClassVar[tuple[str, ...]]
    per_token: ClassVar[bool] = False
    options: ClassVar[frozenset[str]] = frozenset()
    hf_class: ClassVar[str] = ""
    problem_type: ClassVar[str | None] = None

    def check(self, task: Task, metric: str = "") -> None:
        """Check the settings of a task that can be judged before any data is read.

        Args:
          task: settings of the task.
          metric: `train.metric`; "" for the kind's usual one.

        Raises:
          UserError: an option that the kind has no use for, or a metric that it does not have.
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
