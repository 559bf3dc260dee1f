"""What a run trains: everything that the loop needs of pre-training or of a downstream task, behind one protocol."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
from flax import nnx

from jaxplm.config import Config, Train
from jaxplm.data.batch import HostBatch
from jaxplm.engine.optim import TrainFirst
from jaxplm.nn import Compute, ParamTree
from jaxplm.reporting.facts import Facts, JobFacts
from jaxplm.scores.metric import Metric
from jaxplm.tasks import Task

Metrics = dict[str, float]


class TrainBatches(Protocol):
    """The training data, a pure function of the step's number."""

    @property
    def steps_per_epoch(self) -> float: ...

    def batch(self, step: int) -> HostBatch:
        """Return the rows that this process makes of step `step`, counted from 0, as [rows, ...] NumPy arrays."""
        ...


class Job(Protocol):
    """A model, its data and what is done with it in the end. All processes of a run call the same methods in the same order."""

    graph: nnx.GraphDef  # of the module that `task.sums` is given
    params: ParamTree  # of that module before the first step; NumPy or JAX float32 arrays
    rows: int  # B, rows per step over all processes
    settings: Train  # the config's, less what does not apply (see the class that makes it)
    train_first: TrainFirst | None  # what is trained alone at first
    fingerprint: str  # of all texts that were read
    metric: Metric  # of the validation set, by which the best checkpoint is chosen

    @property
    def task(self) -> Task: ...

    @property
    def train(self) -> TrainBatches: ...

    @property
    def eval_traces(self) -> int:
        """How often the evaluation step was traced, and so compiled (`engine.step.JittedStep`)."""
        ...

    def evaluate(self, params: ParamTree) -> Mapping[str, Metrics]:
        """Return the metrics of each evaluation set that is followed while training, {'validation': {...}, ...}. Has 'validation'."""
        ...

    def finish(self, params: ParamTree, write: Callable[[str, Metrics], None]) -> None:
        """Measure what is measured only once, with the best parameters; `write(split, metrics)` logs it."""
        ...

    def facts(self, steps: int) -> JobFacts:
        """Return what a report says about this job; the loop adds its own settings and the cost."""
        ...

    def export(self, directory: Path, params: ParamTree, facts: Facts, rows: list[dict[str, Any]]) -> None:
        """Write the model directory. `params` are whole NumPy arrays. Called in the first process only."""
        ...


MakeJob = Callable[[Config, Path, jax.sharding.Mesh, Compute], Job]  # (config, workdir, mesh, compute)
