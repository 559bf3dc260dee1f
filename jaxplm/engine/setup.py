"""What is fixed before the first step of a run: its length, the state's shapes and shardings, the optimizer, the train step.

Nothing here allocates device memory or compiles before it is asked to, so the lowered step of any job can be had for any
mesh, also for one whose devices are not here.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import jax
from flax import nnx

from jaxplm.config import MOST_STEPS, Config, Train
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.engine.job import Job, MakeJob
from jaxplm.engine.optim import TrainFirst, optimizer
from jaxplm.engine.step import TrainState, TrainStep, make_train_step, new_state
from jaxplm.errors import UserError
from jaxplm.nn import Compute, ParamTree
from jaxplm.tasks import Task


def steps_in(train: Train, steps_per_epoch: float) -> int:
    """Return the steps of a run by `train.steps` or, where that is None, by `train.epochs`: at least one.

    Raises:
      UserError: more than the devices count.
    """
    if train.steps is not None:
        return train.steps
    epochs = train.epochs or 0.0
    if (steps := max(1, math.ceil(epochs * steps_per_epoch))) > MOST_STEPS:
        raise UserError(f"train.epochs={epochs:g}: {steps:,} steps; a run has {MOST_STEPS:,} at most, which are"
                        f" {MOST_STEPS / steps_per_epoch:.6g} epochs here")
    return steps


class TrainSetup:
    """The training of a model on a mesh, before anything is placed or compiled.

    Args:
      graph: of the module that `task.sums` is given.
      params: of that module; concrete or abstract, only paths and shapes are read.
      task: the loss.
      train: the optimizer's settings, and in how many parts a batch is computed.
      steps: of the whole run, for the schedule.
      mesh: its devices need not be here, as long as nothing is placed.
      seed: of dropout.
      train_first: parts of the parameters that are trained alone at first.

    Attributes:
      steps: of the whole run.
      state: the `TrainState` as `jax.ShapeDtypeStruct`s with shardings: what a step is lowered for, and a checkpoint restored onto.
      train_step: the jitted update.
    """

    def __init__(self, graph: nnx.GraphDef, params: ParamTree, task: Task, train: Train, steps: int, mesh: jax.sharding.Mesh,
                 compute: Compute, *, seed: int = 0, train_first: TrainFirst | None = None) -> None:
        self.steps = steps
        self._seed = seed
        abstract = jax.eval_shape(lambda: params)
        self._optimizer = optimizer(train, steps, abstract, train_first)
        without_shardings = jax.eval_shape(self._new_state, abstract)
        self._shardings: TrainState = sharding.state_shardings(without_shardings, abstract, mesh)
        self.state: TrainState = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), without_shardings, self._shardings)
        self.train_step: TrainStep = make_train_step(graph, task, self._optimizer, self._shardings, mesh, compute=compute,
                                                     accumulate=train.accumulate)

    def _new_state(self, params: ParamTree) -> TrainState:
        return new_state(params, self._optimizer.transformation, self._seed)

    def first_state(self, params: ParamTree) -> TrainState:
        """Return the state before the first step, laid out over the mesh.

        Args:
          params: whole float32 arrays, NumPy or JAX, in every process.
        """
        placed = jax.tree.map(sharding.place, params, self._shardings.params)
        return jax.jit(self._new_state, out_shardings=self._shardings)(placed)

    def lower(self, batch: object) -> jax.stages.Lowered:
        """Return the lowered, uncompiled train step for a batch of these shapes.

        Args:
          batch: all rows of a step, [B, ...]; arrays or `jax.ShapeDtypeStruct`s (`sharding.abstract_batch`).
        """
        return self.train_step.lower(self.state, batch)


@dataclass(frozen=True)
class Prepared:
    """A job, where and how it is computed, and its training."""

    config: Config
    mesh: jax.sharding.Mesh
    compute: Compute
    job: Job
    setup: TrainSetup

    def lower(self) -> jax.stages.Lowered:
        """Return the lowered, uncompiled train step of the job, for the shapes of its first batch."""
        return self.setup.lower(sharding.abstract_batch(self.job.train.batch(0), self.job.rows, self.mesh))


def prepare(config: Config, workdir: Path, make_job: MakeJob, *, mesh: jax.sharding.Mesh | None = None,
            compute: Compute | None = None) -> Prepared:
    """Read what a run needs (model, data) and set its training up.

    Args:
      workdir: where the job keeps what it makes on the way, such as a new tokenizer.
      mesh: None makes the one that the config asks for, of the devices that are here.
      compute: None resolves what the config asks for on these devices. Required for a mesh of other devices.

    Raises:
      UserError: the model, the data or the settings cannot be used.
    """
    mesh = sharding.make_mesh(config.mesh) if mesh is None else mesh
    compute = resolve_compute(config.compute, mesh) if compute is None else compute
    job = make_job(config, workdir, mesh, compute)
    setup = TrainSetup(job.graph, job.params, job.task, job.settings, steps_in(job.settings, job.train.steps_per_epoch), mesh, compute,
                       seed=config.seed, train_first=job.train_first)
    return Prepared(config, mesh, compute, job, setup)
