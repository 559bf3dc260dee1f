"""The compiled steps: one for training, one for evaluation, each traced once."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxplm.devices.sharding import batch_sharding, param_shardings, replicated, state_shardings
from jaxplm.engine.optim import Tree, stop_frozen
from jaxplm.nn import Compute, ParamTree, merge_params
from jaxplm.tasks import Task

Metrics = dict[str, jax.Array]
Measure = Callable[..., Any]  # (module, batch, *, key, compute) → a pytree of arrays
EvalStep = Callable[[ParamTree, Any], Any]

# How often each kind of step was traced, and so compiled, in this process: with fixed shapes, once a run.
TRACES: Counter[str] = Counter()


class TrainState(NamedTuple):
    """Everything that a step reads and writes besides the batch; a checkpoint is this and nothing more."""

    params: ParamTree  # float32
    opt_state: Any
    step: jax.Array  # int32 scalar: updates attempted so far
    key: jax.Array  # uint32 key data; the dropout of step t is fold_in(key, t)


def new_state(params: ParamTree, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step. Works on abstract params under `jax.eval_shape`."""
    return TrainState(params, tx.init(params), jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(seed)))


def split_rows(batch: Any, parts: int) -> Any:
    """[B, ...] → [parts, B / parts, ...]: part i holds rows i, i + parts, ..., so that each device keeps its own rows."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def make_train_step(graph: nnx.GraphDef, task: Task, tx: optax.GradientTransformationExtraArgs, rate: optax.Schedule,
                    state: TrainState, mesh: jax.sharding.Mesh, *, compute: Compute, accumulate: int = 1,
                    frozen: Tree | None = None) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The jitted update `(state, batch) → (state, metrics)`; the state's memory is donated.

    The loss is the mean over the whole batch whatever `accumulate` and the mesh are: each part's sum is divided by
    the batch's total weight before it is differentiated. A non-finite loss or gradient leaves parameters and
    optimizer as they were and reports `bad` = 1; the step still counts.

    Args:
      graph: of the model, from `nn.abstract_model`.
      rate: the schedule inside `tx`, for the log.
      state: abstract or concrete; only shapes are read.
      frozen: what has no gradient (`optim.frozen_layers`), or None.

    Returns: metrics are replicated float32 scalars: the task's sums, grad_norm, learning_rate, bad.
    """
    def one_part(params: ParamTree, part: Any, key: jax.Array, weights: dict[str, jax.Array]):
        if frozen is not None:
            params = stop_frozen(params, frozen)
        sums = task.sums(merge_params(graph, params), part, key=key, compute=compute)
        return sum(sums[name] / weight for name, weight in weights.items()), sums

    gradient = jax.grad(one_part, has_aux=True)

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        TRACES["training"] += 1
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
            good = jnp.isfinite(norm) & jnp.isfinite(sum(sums[name] for name in weights))
            with jax.numpy_dtype_promotion("standard"):  # optax raises its decay rates to an int32 power
                updates, opt_state = tx.update(grads, state.opt_state, state.params, good=good)
            params = jax.tree.map(lambda update, old: jnp.where(good, old + update, old), updates, state.params)
            # The moments are chosen by `good` where they are made; here, what counts steps.
            opt_state = jax.tree.map(lambda new, old: jnp.where(good, new, old) if new.ndim == 0 else new, opt_state, state.opt_state)
        metrics = sums | {"grad_norm": norm, "learning_rate": rate(state.step), "bad": 1.0 - good.astype(jnp.float32)}
        return TrainState(params, opt_state, state.step + 1, state.key), metrics

    placed = state_shardings(state, state.params, mesh)
    return jax.jit(train_step, donate_argnums=0, in_shardings=(placed, batch_sharding(mesh)),
                   out_shardings=(placed, replicated(mesh)))


def make_eval_step(graph: nnx.GraphDef, measure: Measure, params: ParamTree, mesh: jax.sharding.Mesh, *,
                   compute: Compute) -> EvalStep:
    """The jitted `(params, batch) → measure(module, batch, key=None, compute=compute)`, dropout off.

    `measure` is a task's `sums`, or anything of that form that gives a pytree of arrays; every process gets all of it.
    """
    def eval_step(params: ParamTree, batch: Any) -> Any:
        TRACES["evaluation"] += 1
        return measure(merge_params(graph, params), batch, key=None, compute=compute)

    return jax.jit(eval_step, in_shardings=(param_shardings(params, mesh), batch_sharding(mesh)),
                   out_shardings=replicated(mesh))
