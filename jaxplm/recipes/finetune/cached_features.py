"""The vectors of a frozen encoder, computed once and kept on disk: a head is trained on them in every epoch."""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxplm.data import atomic, checksums
from jaxplm.data.batch import EncoderBatch, FeatureBatch
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.labelled.unit_rows import PlacedRows
from jaxplm.devices.processes import broadcast, is_first, wait_for_all
from jaxplm.engine.predict import UnitBatches, scatter_to_units
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import sweep
from jaxplm.errors import UserError
from jaxplm.nn import Compute, ParamTree

log = logging.getLogger("jaxplm")


def feature_batch(vectors: np.ndarray, targets: Targets, per_token: bool, rows: PlacedRows) -> FeatureBatch:
    """Return what the head reads of these rows, and what is to be learned from them.

    Args:
      vectors: [n, M, D] of the set's units, or [T, M, D] of their tokens with `per_token`; memory-mapped.
      targets: of the set.
    """
    features = rows.of_tokens(vectors) if per_token else rows.of_units(vectors)
    return FeatureBatch(features, rows.segment_ids, *targets.place(rows))


class VectorCache:
    """Computes the vectors of sets of units by a frozen encoder, or finds them in `directory`.

    Args:
      directory: one file per set, complete or absent.
      graph, params: of the `TaskModel` whose `features` are kept; placed on the mesh.
      per_token: keep a vector for every token and not one per unit.
      rows: B, rows per batch.
    """

    def __init__(self, directory: Path, graph: nnx.GraphDef, params: ParamTree, mesh: jax.sharding.Mesh, compute: Compute, *,
                 per_token: bool, rows: int) -> None:
        self._directory, self._params, self._mesh = directory, params, mesh
        self._rows, self._per_token = rows, per_token

        def measure(module: Any, batch: EncoderBatch, *, key: None, compute: Compute) -> jax.Array:
            return module.features(batch.input_ids, batch.segment_ids, batch.position_ids, batch.token_types, batch.first,
                                   key=key, compute=compute)

        self._step = make_eval_step(graph, measure, params, mesh, compute=compute)

    def __call__(self, name: str, batches: UnitBatches, lengths: np.ndarray, fingerprint: str) -> np.ndarray:
        """Return the vectors of a set, [n or T, M, D] float32, memory-mapped.

        Args:
          fingerprint: of the units and of the encoder: vectors of others are not used.

        Raises:
          UserError: no space on the disk, or no permission.
        """
        file, note = self._directory / f"{name}.npy", self._directory / f"{name}.json"
        if not broadcast(int(is_first() and _usable(name, file, note, fingerprint))):
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
                shape = (int(lengths.sum()) if self._per_token else len(lengths), *found.shape[2:])
                values = _new_file(partial, shape)
            scatter_to_units(values, found, batches.units_of(index), lengths, by_token=self._per_token)
        if values is None:
            return
        values.flush()
        note.unlink(missing_ok=True)  # it describes the old file
        partial.replace(file)
        atomic.write_text(note, json.dumps(checksums.sealed({"fingerprint": fingerprint, "checksum": checksums.of_file(file)})))
        log.info("%s: vectors of the frozen encoder for %s %s, %.0f MB, in %.1f s", name, f"{len(values):,}",
                 "tokens" if self._per_token else "texts", values.nbytes / 1e6, time.monotonic() - began)


def _usable(name: str, file: Path, note: Path, fingerprint: str) -> bool:
    """Return whether the vectors of this encoder and these units are there and undamaged; the log names what is damaged."""
    if not note.exists():
        return False
    try:
        content = checksums.opened(checksums.read_json(note), str(note))
        if content.get("fingerprint") != fingerprint:
            return False
        if checksums.of_file(file) != content.get("checksum"):
            raise checksums.Damaged(f"{file} is not what was written")
    except (OSError, checksums.Damaged) as error:
        log.warning("%s: %s: the frozen encoder's vectors are computed again", name, error)
        return False
    return True


def _new_file(path: Path, shape: tuple[int, ...]) -> np.memmap:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the frozen encoder's vectors to {path.parent}: {error.strerror or error}") from None
    need, free = 4 * int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if need > free:
        raise UserError(f"no space for the frozen encoder's vectors in {path.parent}: {need / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB"
                        " free; task.cache=off computes them in every epoch, task.layers=last needs fewer")
    return np.lib.format.open_memmap(path, "w+", np.float32, shape)


def fingerprint_of(params: ParamTree, *arrays: np.ndarray) -> str:
    """Return a hash of an encoder's parameters and of the units that it reads."""
    total = hashlib.blake2b(digest_size=16)
    for leaf in (*jax.tree.leaves(params), *arrays):
        total.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return total.hexdigest()
