"""The training state on disk, by Orbax: asynchronous, complete or absent, bit for bit, onto any mesh.

A checkpoint is the state's leaves under their paths, and a small description of them: shapes, dtypes, checksums
and the metric by which the best checkpoint is found. What is read is compared with that description, so a
checkpoint that was damaged on disk is noticed, named and passed over.
"""

import errno
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxplm.checkpoint import manifest, reader
from jaxplm.checkpoint.checksums import checksums
from jaxplm.checkpoint.manifest import Damaged
from jaxplm.devices.processes import all_agree, is_first, wait_for_all
from jaxplm.errors import UserError
from jaxplm.scores.metric import LOSS, Metric

log = logging.getLogger("jaxplm")

_SET_ASIDE = "damaged-"
_TIMES = "_CHECKPOINT_METADATA"  # Orbax's file in each checkpoint
# Space that must be free besides the arrays: for the store's own files, the metrics and the report. A write that fails
# half-way does no harm, but Orbax's threads then print tracebacks.
_SPARE = 64 * 2**20  # bytes


class Checkpoints:
    """The checkpoints of one run: the newest `keep` and the best one.

    In a run of several processes every process has one, on a directory that all of them see, and all call the
    same methods in the same order.

    Args:
      directory: created if it is not there. What an interrupted write left in it is removed.
      keep: how many of the newest checkpoints are kept, at least 1; the best one is kept as well.
      save_every: in steps; `save` does nothing on the steps between, unless forced. 0: only when forced.
      metric: the score whose value is given to `save`; the best checkpoint is the one with the best value.

    Raises:
      UserError: the directory cannot be created or written.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int, save_every: int, metric: Metric = LOSS) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.directory = Path(directory).absolute()
        self.save_every = save_every
        self._metric = metric
        self._keep = keep
        self._metrics: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=True,
            save_root_metadata=False,
            preservation_policy=_Preserve(self._kept),
        )

        def open_directory() -> ocp.CheckpointManager:
            try:
                return ocp.CheckpointManager(self.directory, options=options, handler_registry=_handlers())
            except OSError as error:
                raise UserError(f"cannot write checkpoints to {self.directory}: {error.strerror or error}") from error

        try:
            self._manager = open_directory()
        except (ValueError, TypeError, AttributeError, RecursionError) as error:  # what damaged JSON makes Orbax raise
            self._remove_times(error)
            self._manager = open_directory()
        if not isinstance(sys.excepthook, _WithoutClosedLoops):
            sys.excepthook = _WithoutClosedLoops(sys.excepthook)
        self._reload()

    # ---------------------------------------------------------------- the steps

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, the one that is being written included; oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        return max(self.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint with the best metric (the earliest of equals), None if none has one."""
        return self._best(self.steps)

    # ---------------------------------------------------------------- writing

    def save(self, step: int, state: Any, metric: float | None = None, *, force: bool = False,
             note: dict[str, Any] | None = None) -> bool:
        """Start writing the state of a step; return when the arrays are copied and may be donated.

        Args:
          step: of the state. Nothing is written for a step that has a checkpoint already.
          state: a pytree of `jax.Array` (typed random keys as their raw data).
          metric: of this state, for choosing the best; None or NaN: never the best.
          force: write also when the step is not a multiple of `save_every`.
          note: what `note` gives back for this step: JSON, of a few numbers.

        Returns:
          Whether writing was started.

        Raises:
          UserError: no space on the disk, for this checkpoint or for the one before it.
        """
        if not self.is_due(step, force=force):
            return False
        leaves = {path: leaf for path, leaf in manifest.flatten(state).items() if leaf.size}
        self.wait()  # also frees the space of checkpoints that this one does not replace
        self._require_space(sum(leaf.nbytes for leaf in leaves.values()))
        if metric is not None and math.isfinite(metric):
            self._metrics[step] = float(metric)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(leaves),
            about=ocp.args.JsonSave(manifest.describe(leaves, self._metrics.get(step), note)),
        )
        self._guard(lambda: self._manager.save(step, args=items, force=True))
        return True

    def is_due(self, step: int, *, force: bool = False) -> bool:
        """Return whether `save` would write the state of this step."""
        due = self.save_every > 0 and step > 0 and step % self.save_every == 0
        return (due or force) and step not in self._manager.all_steps()

    def note(self, step: int) -> dict[str, Any] | None:
        """Return the note that was saved with the state of a step; None where there is none."""
        try:
            return manifest.read(self.directory / str(step)).get("note")
        except Damaged:
            return None

    def require_space(self, state: Any) -> None:
        """Raise a UserError if the disk has no room for a checkpoint of this state, so that a run fails before it trains."""
        self._require_space(sum(leaf.nbytes for leaf in jax.tree.leaves(state)))

    def wait(self) -> None:
        """Wait until what was started is on disk.

        Raises:
          UserError: no space on the disk.
        """
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Wait, and end the threads. The object cannot be used afterwards.

        Raises:
          UserError: no space on the disk.
        """
        self._guard(self._manager.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---------------------------------------------------------------- reading

    def restore_latest(self, abstract: Any) -> tuple[Any, int] | None:
        """Return the newest usable state and its step; None if there is no checkpoint.

        A damaged checkpoint is named in a warning and set aside (renamed to `damaged-<step>`), so that the run can
        write that step again.

        Args:
          abstract: the state as `jax.ShapeDtypeStruct`s (or arrays) that carry the shardings to restore onto; they
            may be of another mesh than the one that wrote.

        Raises:
          UserError: there are checkpoints, but none is usable or they are of another model or optimizer.
        """
        self.wait()
        return self._first_usable(sorted(self.steps, reverse=True), abstract)

    def restore_best(self, abstract: Any) -> tuple[Any, int] | None:
        """Return the usable state with the best metric, and its step; None if there is no checkpoint.

        States without a metric come last, the newest first. Otherwise as `restore_latest`.
        """

        def rank(step: int) -> tuple[float, int]:
            value = self._metrics.get(step)
            return (math.inf, -step) if value is None else (self._metric.cost(value), step)

        self.wait()
        return self._first_usable(sorted(self.steps, key=rank), abstract)

    def _first_usable(self, order: Iterable[int], abstract: Any) -> tuple[Any, int] | None:
        damaged: dict[int, str] = {}
        for step in order:
            try:
                state = self._read(step, abstract)
            except Damaged as damage:
                damaged[step] = str(damage)
                continue
            for damaged_step, reason in damaged.items():
                log.warning(
                    "checkpoint of step %d is damaged (%s); using the one of step %d; the damaged one is now %s%d",
                    damaged_step, reason, step, _SET_ASIDE, damaged_step)
            self._set_aside(damaged)
            return state, step
        if damaged:
            first = next(iter(damaged.items()))
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self.directory} is usable "
                f"(step {first[0]}: {first[1]}); remove the directory to start again"
            )
        return None

    def _read(self, step: int, abstract: Any) -> Any:
        """Return the state of a step, compared with its description. If one process raises, all do."""
        folder = self.directory / str(step)
        want = manifest.flatten(abstract)
        about = self._together(lambda: manifest.read(folder))
        manifest.require_same(about["leaves"], {path: leaf for path, leaf in want.items() if leaf.size}, folder)
        targets = {path: reader.target(leaf) for path, leaf in want.items() if leaf.size}
        arrays = self._together(lambda: reader.read_arrays(folder / "state", targets))
        for path, found in zip(arrays, checksums(list(arrays.values())), strict=True):
            if found != about["leaves"][path][2]:
                raise Damaged(f"{path} is not what was written")
        for path, leaf in want.items():
            if not leaf.size:  # nothing of it is stored
                arrays[path] = jax.device_put(np.zeros(leaf.shape, leaf.dtype), reader.target(leaf).sharding)
        return jax.tree.unflatten(jax.tree.structure(abstract), [arrays[path] for path in want])

    # ---------------------------------------------------------------- helpers

    def _together(self, read: Callable[[], Any]) -> Any:
        """Run `read` in every process; raise Damaged in all of them if it failed in one."""
        result, failure = None, None
        try:
            result = read()
        except Exception as error:  # noqa: BLE001 whatever a broken file makes the readers below raise
            failure = error
        everywhere = all_agree(failure is None)
        if failure is not None:
            if isinstance(failure, MemoryError):
                raise failure
            raise failure if isinstance(failure, Damaged) else Damaged(repr(failure)) from failure
        if not everywhere:
            raise Damaged("another process could not read it")
        return result

    def _set_aside(self, steps: Iterable[int]) -> None:
        """Rename damaged checkpoints, so that a run can write those steps again."""
        steps = list(steps)
        if not steps:
            return
        if is_first():
            for step in steps:
                aside = self.directory / f"{_SET_ASIDE}{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.directory / str(step)).rename(aside)
        wait_for_all("damaged checkpoints set aside")
        self._reload()

    def _remove_times(self, error: Exception) -> None:
        """Remove Orbax's note of when each checkpoint was written, because one of them cannot be read; `error` says why.

        Nothing here needs the times, and a state is compared with its own description. All processes call this together.

        Raises:
          Exception: `error`, if there is no such note: it has another cause.
        """
        notes = sorted(self.directory.glob(f"*/{_TIMES}"))
        wait_for_all("times of checkpoints listed")  # before the first process removes them
        if not notes:
            raise error
        log.warning("%s: a file %s is damaged (%s); all of them are removed, and the states are used", self.directory, _TIMES,
                    type(error).__name__)
        if is_first():
            for note in notes:
                note.unlink()
        wait_for_all("times of checkpoints removed")

    def _reload(self) -> None:
        """Read which checkpoints there are, and their metrics."""
        self._manager.reload()
        self._metrics.clear()
        for step in self._manager.all_steps():
            try:
                metric = manifest.read(self.directory / str(step))["metric"]
            except (OSError, ValueError, KeyError, Damaged):
                continue  # restoring it will say what is wrong
            if metric is not None:
                self._metrics[step] = metric

    def _best(self, steps: Iterable[int]) -> int | None:
        ranked = [(self._metric.cost(self._metrics[step]), step) for step in steps if step in self._metrics]
        return min(ranked)[1] if ranked else None

    def _kept(self, steps: list[int]) -> set[int]:
        best = self._best(steps)
        return set(sorted(steps)[-self._keep :]) | ({best} if best is not None else set())

    def _require_space(self, need: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if need + _SPARE > free:
            raise UserError(_no_space(self.directory, f"a checkpoint needs {_gb(need + _SPARE)}, {_gb(free)} are free"))

    def _guard(self, action: Callable[[], Any]) -> None:
        """Call `action`; a full disk becomes a UserError."""
        try:
            action()
        except Exception as error:
            if not _is_no_space(error):
                raise
            free = shutil.disk_usage(self.directory).free
            raise UserError(_no_space(self.directory, f"{_gb(free)} are free")) from error


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Return the handlers for the format that `reader` reads. Compression is off: it saves at most 8 % of trained float32 weights."""
    state = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, use_compression=False)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.PyTreeSave, state)
    registry.add("about", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    return registry


class _WithoutClosedLoops:
    """A `sys.excepthook` that drops what TensorStore's threads report after a write that failed.

    The failure itself is raised by Orbax and becomes one line. The event loop that it closes is still told of the end of some
    eighty other writes, and each of these prints a traceback.
    """

    def __init__(self, previous: Callable[..., Any]) -> None:
        self._previous = previous

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            self._previous(kind, error, trace)


class _Preserve:
    """Orbax's protocol for what is kept."""

    def __init__(self, kept: Callable[[list[int]], set[int]]) -> None:
        self._kept = kept

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        kept = self._kept([info.step for info in checkpoints])
        return [info.step in kept for info in checkpoints]


def _is_no_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(error) for text in ("No space left on device", "Disk quota exceeded")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_space(directory: Path, detail: str) -> str:
    return f"no space for a checkpoint in {directory}: {detail}; free some, or lower checkpoint.keep"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
