"""The jitted steps: one for training, one for evaluation, each traced once per shape of its batches."""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxplm.devices.compute import compiler_options
from jaxplm.devices.sharding import batch_sharding, param_shardings, replicated
from jaxplm.engine.optim import Optimizer, stop_frozen
from jaxplm.nn import Compute, ParamTree, merge_params
from jaxplm.tasks import Task

Metrics = dict[str, jax.Array]
Measure = Callable[..., Any]  # (module, batch, *, key, compute) → a pytree of arrays

P = ParamSpec("P")
R = TypeVar("R")


class JittedStep(Generic[P, R]):
    """A jitted function that counts how often it was traced, and so compiled: with fixed shapes, once per run.

    Attributes:
      traces: the count.
    """

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        """Wrap `function`; `options` are those of `jax.jit`. Nothing is traced yet."""
        self.traces = 0

        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            self.traces += 1
            return function(*args, **kwargs)

        self._jitted = jax.jit(counted, compiler_options=compiler_options(), **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._jitted(*args, **kwargs)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Return the lowered, uncompiled program for arguments that may be abstract (`jax.ShapeDtypeStruct`)."""
        return self._jitted.lower(*args)


class TrainState(NamedTuple):
    """Everything that a step reads and writes besides the batch. A checkpoint is this and nothing more."""

    params: ParamTree  # float32
    opt_state: Any
    step: jax.Array  # int32 scalar: updates attempted so far
    key: jax.Array  # uint32 key data; the dropout of step t is fold_in(key, t)


EvalStep = JittedStep[[ParamTree, Any], Any]
TrainStep = JittedStep[[TrainState, Any], tuple[TrainState, Metrics]]


def new_state(params: ParamTree, transformation: optax.GradientTransformation, seed: int) -> TrainState:
    """Return the state before the first step. Works on abstract params under `jax.eval_shape`."""
    return TrainState(params, transformation.init(params), jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(seed)))


def split_rows(batch: Any, parts: int) -> Any:
    """Reshape [B, ...] to [parts, B / parts, ...]: part i holds rows i, i + parts, ..., so that each device keeps its own rows."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def make_train_step(graph: nnx.GraphDef, task: Task, optimizer: Optimizer, shardings: TrainState, mesh: jax.sharding.Mesh, *,
                    compute: Compute, accumulate: int = 1) -> TrainStep:
    """Return the jitted update `(state, batch) → (state, metrics)`; the state's memory is donated.

    The loss is the mean over the whole batch whatever `accumulate` and the mesh are: each part's sum is divided by
    the batch's total weight before it is differentiated. A loss or gradient that is not finite leaves parameters and
    optimizer as they were and reports `nonfinite` = 1; the step still counts.

    Args:
      graph: of the model, from `nn.abstract_model`.
      shardings: a `NamedSharding` for every leaf of the state.
      accumulate: in how many parts, one after the other, the rows of a batch are computed.

    Returns:
      The step. Its metrics are replicated float32 scalars: the task's sums, grad_norm, learning_rate, nonfinite.
    """
    def one_part(params: ParamTree, part: Any, key: jax.Array, weights: dict[str, jax.Array]):
        if optimizer.frozen is not None:
            params = stop_frozen(params, optimizer.frozen)
        sums = task.sums(merge_params(graph, params), part, key=key, compute=compute)
        return sum(sums[name] / weight for name, weight in weights.items()), sums

    gradient = jax.grad(one_part, has_aux=True)

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        weights = {name: jnp.maximum(weight, 1.0) for name, weight in task.weights_of(batch).items()}
        if accumulate == 1:
            grads, sums = gradient(state.params, batch, key, weights)
        else:
            def add_part(total, indexed):
                index, part = indexed
                return jax.tree.map(jnp.add, total, gradient(state.params, part, jax.random.fold_in(key, index), weights)), None

            parts = split_rows(batch, accumulate)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(
                gradient, state.params, jax.tree.map(lambda x: x[0], parts), key, weights))
            (grads, sums), _ = jax.lax.scan(add_part, zeros, (jnp.arange(accumulate), parts))
        with jax.named_scope("optimizer"):  # benchmarks/profile_step.py tells the parts of a step by such names
            norm = optax.tree.norm(grads)
            finite = jnp.isfinite(norm) & jnp.isfinite(sum(sums[name] for name in weights))
            with jax.numpy_dtype_promotion("standard"):  # optax raises its decay rates to an int32 power
                updates, opt_state = optimizer.transformation.update(grads, state.opt_state, state.params, finite=finite)
            params = jax.tree.map(lambda update, old: jnp.where(finite, old + update, old), updates, state.params)
            # Adam's moments are chosen by `finite` inside the update. Here it is the scalars, which count steps.
            opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old) if new.ndim == 0 else new,
                                     opt_state, state.opt_state)
        metrics = sums | {"grad_norm": norm, "learning_rate": optimizer.schedule(state.step),
                          "nonfinite": 1.0 - finite.astype(jnp.float32)}
        return TrainState(params, opt_state, state.step + 1, state.key), metrics

    return JittedStep(train_step, donate_argnums=0, in_shardings=(shardings, batch_sharding(mesh)),
                      out_shardings=(shardings, replicated(mesh)))


def make_eval_step(graph: nnx.GraphDef, measure: Measure, params: ParamTree, mesh: jax.sharding.Mesh, *,
                   compute: Compute) -> EvalStep:
    """Return the jitted `(params, batch) → measure(module, batch, key=None, compute=compute)`, with dropout off.

    Args:
      measure: a task's `sums`, or anything of that form that returns a pytree of arrays; every process gets all of it.
      params: concrete or abstract; only paths and shapes are read.
    """
    def eval_step(params: ParamTree, batch: Any) -> Any:
        return measure(merge_params(graph, params), batch, key=None, compute=compute)

    return JittedStep(eval_step, in_shardings=(param_shardings(params, mesh), batch_sharding(mesh)),
                      out_shardings=replicated(mesh))
