"""Scores of a task's model on the evaluated sets, its predictions, and what the report says about them."""

from collections.abc import Callable, Mapping

from flax import nnx

from jaxplm.data.labelled.task_batches import FixedBatches
from jaxplm.devices.processes import is_first
from jaxplm.engine.job import Metrics
from jaxplm.engine.predict import Predictor, measured
from jaxplm.nn import ParamTree
from jaxplm.recipes.finetune.setup import TaskSetup
from jaxplm.reporting.facts import Section
from jaxplm.reporting.predictions import write_predictions
from jaxplm.reporting.sections import classes_section, confusion_figure, entities_section
from jaxplm.tasks.results import Result


class Evaluation:
    """Measures a model on the sets of a run; compiled once for all of them.

    Args:
      setup: of the task.
      graph, abstract: the module that is trained, and its abstract parameters.
      batches: of each set, as that module reads them.
    """

    def __init__(self, setup: TaskSetup, graph: nnx.GraphDef, abstract: ParamTree, batches: Mapping[str, FixedBatches]) -> None:
        self._setup, self._batches = setup, batches
        self._predict = Predictor(graph, abstract, setup.task, setup.mesh, setup.compute, by_token=setup.start.head.per_token,
                                  rows=setup.encoded.evaluation_rows)

    @property
    def traces(self) -> int:
        """How often the evaluation step was traced, and so compiled."""
        return self._predict.traces

    def validation(self, params: ParamTree) -> Metrics:
        """Return the scores and the loss on the validation set."""
        return self._measure("validation", params)[0]

    def _measure(self, name: str, params: ParamTree) -> tuple[Metrics, Result]:
        setup = self._setup
        eval_set = setup.sets.eval_set(setup.sets.evaluated[name], setup.encoded.encoded[name], setup.config)
        return measured(self._predict, params, self._batches[name], eval_set, setup.task)

    def finish(self, params: ParamTree, write: Callable[[str, Metrics], None]) -> list[Section]:
        """Measure the test set and write predictions.jsonl for it; without one, look once more at the validation set.

        Args:
          params: those that are exported.
          write: logs the metrics of a split.

        Returns:
          What the report shows of the set: scores by class and by type of entity. Empty in all processes but the first.
        """
        setup = self._setup
        name = "test" if "test" in setup.sets.evaluated else "validation"
        metrics, result = self._measure(name, params)
        if name == "test" and result.scores:
            write("test", metrics)
        if not is_first():
            return []
        if name == "test":
            write_predictions(setup.workdir / "predictions.jsonl", result.predictions)
        sections = []
        if result.classes:
            figures = [confusion_figure(setup.workdir, result.confusion, result.classes)] if result.confusion is not None else []
            sections.append(classes_section(result.classes, name, figures))
        if result.entities:
            sections.append(entities_section(result.entities, name))
        return sections
