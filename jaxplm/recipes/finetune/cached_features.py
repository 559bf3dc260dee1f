"""The vectors of a frozen encoder, computed once and kept on disk: what a head is trained on, epoch after epoch."""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx

from jaxplm.data import atomic
from jaxplm.data.batch import FeatureBatch, TaskBatch
from jaxplm.data.labelled.unit_index import take, token_index
from jaxplm.devices.processes import is_first, wait_for_all
from jaxplm.engine.predict import UnitBatches, scatter_to_units
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import sweep
from jaxplm.errors import UserError
from jaxplm.nn import Compute, ParamTree

log = logging.getLogger("jaxplm")


class RowsOfUnits(Protocol):
    """Batches of units in rows, for training or for evaluation."""

    def batch(self, index: int) -> TaskBatch: ...

    def units_of(self, index: int) -> np.ndarray: ...


class FeatureBatches:
    """The same batches as `rows`, with vectors in the place of tokens.

    Args:
      rows: makes the rows of this process, `slots` of each batch.
      vectors: [n, M, D] of the units, or [T, M, D] of their tokens; memory-mapped.
      lengths: [n] tokens of each unit.
    """

    def __init__(self, rows: Any, vectors: np.ndarray, lengths: np.ndarray, slots: np.ndarray, *, by_token: bool) -> None:
        self._rows, self._vectors, self._lengths, self._slots, self._by_token = rows, vectors, lengths, slots, by_token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)  # steps_per_epoch, units_of, ...: as they are

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, index: int) -> FeatureBatch:
        made = self._rows.batch(index)
        units = self._rows.units_of(index)[self._slots]
        places = token_index(units, self._lengths, made.segment_ids.shape[1]) if self._by_token else units
        return FeatureBatch(take(self._vectors, places), made.segment_ids, made.labels, made.weights)


class VectorCache:
    """Computes the vectors of sets of units by a frozen encoder, or finds them in `directory`.

    Args:
      directory: one file a set, complete or absent.
      graph, params: of the `TaskModel` whose `features` are kept; placed on the mesh.
      by_token: keep a vector for every token and not one a unit.
      rows: B, rows a batch.
    """

    def __init__(self, directory: Path, graph: nnx.GraphDef, params: ParamTree, mesh: jax.sharding.Mesh, compute: Compute, *,
                 by_token: bool, rows: int) -> None:
        self._directory, self._params, self._mesh, self._rows, self._by_token = directory, params, mesh, rows, by_token

        def measure(module: Any, batch: TaskBatch, *, key: None, compute: Compute) -> jax.Array:
            return module.features(batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.first,
                                   key=key, compute=compute)

        self._step = make_eval_step(graph, measure, params, mesh, compute=compute)

    def __call__(self, name: str, batches: UnitBatches, lengths: np.ndarray, fingerprint: str) -> np.ndarray:
        """The vectors of a set, [n or T, M, D] float32, memory-mapped.

        Args:
          fingerprint: of the units and of the encoder: vectors of others are not used.

        Raises:
          UserError: no space on the disk, or no permission.
        """
        file, note = self._directory / f"{name}.npy", self._directory / f"{name}.json"
        if not (note.exists() and json.loads(note.read_text("utf-8")).get("fingerprint") == fingerprint):
            self._compute(name, file, note, batches, lengths, fingerprint)
        else:
            log.info("%s: the frozen encoder's vectors from %s", name, file)
        wait_for_all(f"vectors of {name}")
        return np.load(file, mmap_mode="r", allow_pickle=False)

    def _compute(self, name: str, file: Path, note: Path, batches: UnitBatches, lengths: np.ndarray, fingerprint: str) -> None:
        began = time.monotonic()
        partial = file.with_suffix(".partial.npy")
        values: np.memmap | None = None
        for index, found in enumerate(sweep(self._step, self._params, batches, self._rows, self._mesh)):
            if not is_first():
                continue  # every process computes its rows, one writes
            if values is None:
                shape = (int(lengths.sum()) if self._by_token else len(lengths), *found.shape[2:])
                values = _new_file(partial, shape)
            scatter_to_units(values, found, batches.units_of(index), lengths, by_token=self._by_token)
        if values is None:
            return
        values.flush()
        note.unlink(missing_ok=True)  # it speaks of the old file
        partial.replace(file)
        atomic.write_text(note, json.dumps({"fingerprint": fingerprint}))
        log.info("%s: vectors of the frozen encoder for %s %s, %.0f MB, in %.1f s", name, f"{len(values):,}",
                 "tokens" if self._by_token else "texts", values.nbytes / 1e6, time.monotonic() - began)


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the frozen encoder's vectors to {path.parent}: {error.strerror or error}") from None
    need, free = 4 * int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if need > free:
        raise UserError(f"no space for the frozen encoder's vectors in {path.parent}: {need / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB"
                        " free; task.cache=off computes them anew in every epoch, task.layers=last needs fewer")
    return np.lib.format.open_memmap(path, "w+", np.float32, shape)


def fingerprint_of(params: ParamTree, *arrays: np.ndarray) -> str:
    """A hash of an encoder's parameters and of the units that it reads."""
    total = hashlib.blake2b(digest_size=16)
    for leaf in (*jax.tree.leaves(params), *arrays):
        total.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return total.hexdigest()
