"""What a run trains: everything that the loop needs of pre-training or of a downstream task, behind one protocol."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
from flax import nnx

from jaxplm.config import Train
from jaxplm.engine.optim import TrainFirst
from jaxplm.nn import ParamTree
from jaxplm.reporting.facts import Facts, JobFacts
from jaxplm.scores.metric import Metric
from jaxplm.tasks import Task

Metrics = dict[str, float]


class TrainBatches(Protocol):
    """The training data, a pure function of the step's number."""

    @property
    def steps_per_epoch(self) -> float: ...

    def batch(self, step: int) -> Any:
        """The rows that this process makes of step `step`, counted from 0: a pytree of [rows, ...] NumPy arrays."""
        ...


class Job(Protocol):
    """A model, its data and what is done with it in the end. All processes of a run call the same methods in the same order."""

    graph: nnx.GraphDef  # of the module that `task.sums` is given
    params: ParamTree  # of that module before the first step; NumPy or JAX float32 arrays
    rows: int  # B, rows a step over all processes
    settings: Train  # the config's, less what does not apply (see the class that makes it)
    train_first: TrainFirst | None  # what is trained alone at first
    fingerprint: str  # of all texts that were read
    metric: Metric  # of the validation set, by which the best checkpoint is chosen

    @property
    def task(self) -> Task: ...

    @property
    def train(self) -> TrainBatches: ...

    def evaluate(self, params: ParamTree) -> Mapping[str, Metrics]:
        """{'validation': {...}, ...}: the metrics of each evaluation set that is followed while training. Has 'validation'."""
        ...

    def finish(self, params: ParamTree, write: Callable[[str, Metrics], None]) -> None:
        """Called once, with the best parameters: measures what is measured only then; `write(split, metrics)` logs it."""
        ...

    def facts(self, steps: int) -> JobFacts:
        """Return what a report says about this job; the loop adds its own settings and the cost."""
        ...

    def export(self, directory: Path, params: ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        """Write the model directory. `params` are whole NumPy arrays. Called in the first process only."""
        ...


MakeJob = Callable[[Any, Path, jax.sharding.Mesh, Any], Job]  # (config, workdir, mesh, compute)
