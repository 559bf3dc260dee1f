"""Compute a task's model on every unit of a set: logits in the order of the set, and the sums of the loss."""

import time
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import nnx

from jaxplm.data.labelled.unit_index import token_index
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import Batches, sweep
from jaxplm.nn import Compute, ParamTree
from jaxplm.scores.sums import Sums, add
from jaxplm.tasks.kinds.kind import EvalSet
from jaxplm.tasks.labelled import LabelledTask, logits
from jaxplm.tasks.results import Result

Metrics = dict[str, float]


class UnitBatches(Batches, Protocol):
    """Every unit of a set once, in packed rows; see `data.labelled.task_batches.FixedBatches`."""

    def units_of(self, index: int) -> np.ndarray:
        """Return [B, S] int64: the unit in each segment of each row of a batch, -1 for an unused one."""
        ...


class Outputs(NamedTuple):
    """What a model computes for a set."""

    logits: np.ndarray  # float32 [n, C] of units, or [T, C] of the units' tokens one after the other
    sums: Sums  # of the loss, as the task returns them


class Predictor:
    """Runs a model over sets of units; compiled once for all sets of one row shape.

    Args:
      graph, params: the model's structure and its (abstract) parameters.
      by_token: whether the model gives logits per token, not per unit.
      rows: B, rows per batch over all processes.
    """

    def __init__(self, graph: nnx.GraphDef, params: ParamTree, task: LabelledTask, mesh: jax.sharding.Mesh, compute: Compute, *,
                 by_token: bool, rows: int) -> None:
        def measure(module: Any, batch: Any, *, key: Any, compute: Compute) -> tuple[dict[str, jax.Array], jax.Array]:
            found = logits(module, batch, key=key, compute=compute)
            return task.sums_of(found, batch), found

        self._step = make_eval_step(graph, measure, params, mesh, compute=compute)
        self._mesh = mesh
        self._rows = rows
        self._by_token = by_token

    @property
    def traces(self) -> int:
        """How often the step was traced, and so compiled."""
        return self._step.traces

    def __call__(self, params: ParamTree, batches: UnitBatches, lengths: np.ndarray) -> Outputs:
        """Return the logits and the sums of a set; `lengths` [n] are the tokens of each unit."""
        sums: list[Any] = []
        values: np.ndarray | None = None
        for index, (part, found) in enumerate(sweep(self._step, params, batches, self._rows, self._mesh)):
            sums.append(part)
            if values is None:
                values = np.zeros((int(lengths.sum()) if self._by_token else len(lengths), found.shape[-1]), np.float32)
            scatter_to_units(values, found, batches.units_of(index), lengths, by_token=self._by_token)
        assert values is not None, "a set has at least one batch"
        return Outputs(values, add(sums))


def measured(predict: Predictor, params: ParamTree, batches: UnitBatches, eval_set: EvalSet, task: LabelledTask) -> tuple[Metrics, Result]:
    """Return a row for metrics.jsonl (the loss where there are labels, the scores, seconds), and the predictions behind it."""
    began = time.monotonic()
    outputs = predict(params, batches, eval_set.encoded.lengths)
    result = eval_set.kind.results(eval_set, outputs.logits)
    loss = task.metrics(outputs.sums) if outputs.sums["weight"] else {}
    return loss | result.scores | {"seconds": round(time.monotonic() - began, 3)}, result


def scatter_to_units(values: np.ndarray, found: np.ndarray, units: np.ndarray, lengths: np.ndarray, *, by_token: bool) -> None:
    """Write the results of a batch of packed rows to their places in the set.

    Args:
      values: [n, ...] of units or [T, ...] of tokens, written to.
      found: [B, S, ...] or [B, L, ...].
      units: [B, S] int64, -1 for unused segments.
      lengths: [n] tokens of each unit.
    """
    index = token_index(units, lengths, found.shape[1]) if by_token else units
    there = index >= 0
    values[index[there]] = found[there]
