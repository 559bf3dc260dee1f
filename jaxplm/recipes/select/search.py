"""Find the nearest texts: candidates by the devices, ranked exactly on the host; a search that was stopped resumes."""

import logging
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxplm.data import atomic
from jaxplm.data.selection.neighbours import certain, cosines, ranked, scan, unit
from jaxplm.devices.processes import broadcast, broadcast_array, is_first
from jaxplm.recipes.select.device_search import Best, DeviceSearch
from jaxplm.recipes.select.vectors import StoredVectors

log = logging.getLogger("jaxplm")

_SAVE_EVERY = 30.0  # seconds
_RANKED_QUERIES = 64  # whose candidates are in memory at once
_SCANNED_QUERIES = 32  # that are compared with all vectors at once
_SCANNED_ROWS = 1 << 12


def find_candidates(task: StoredVectors | None, corpus: StoredVectors | None, neighbours: int, mesh: jax.sharding.Mesh, state: Path,
                    between: Callable[[int], None]) -> Best:
    """Return the candidates for each task vector, the highest cosine first; all processes call this together.

    Args:
      task, corpus: in the first process, which reads and writes files; None in the others.
      neighbours: k. There are more candidates than neighbours, so that `rank` can tell whether none is missing.
      mesh: of the run.
      state: the file in which an unfinished search is kept.
      between: called after each block with the number of vectors so far; it may raise, and the search can be resumed.
    """
    queries, vectors, width = (broadcast(number) for number in ((task.count, corpus.count, corpus.width) if task and corpus else (0, 0, 0)))
    candidates = min(vectors, neighbours + max(16, neighbours // 2))
    units = np.zeros((queries, width), np.float32)
    if task:
        for first, block in task.blocks(_SCANNED_ROWS):
            units[first : first + len(block)] = unit(block)
    search = DeviceSearch(broadcast_array(units), candidates, mesh)
    done = _restore(search, state, (queries, candidates))
    saved, saved_at = time.monotonic(), done
    for first in range(done, vectors, search.block_rows):
        size = min(search.block_rows, vectors - first)
        block = unit(corpus.take(np.arange(first, first + size))).astype(np.float32) if corpus else np.zeros((size, width), np.float32)
        search.add(first, broadcast_array(block))
        done = first + size
        due = done == vectors or time.monotonic() - saved > _SAVE_EVERY
        if broadcast(int(due)):
            saved, saved_at = time.monotonic(), done
            _save(search.best, done, state)
        try:
            between(done)
        except BaseException:
            if saved_at < done:
                _save(search.best, done, state)
            raise
    return search.best


def _save(best: Best, done: int, state: Path) -> None:
    if is_first():
        with atomic.open_new(state, "wb") as file:
            np.savez(file, done=done, values=best.values, numbers=best.numbers)


def _restore(search: DeviceSearch, state: Path, shape: tuple[int, int]) -> int:
    """Continue from a saved state, where there is one, and return how many vectors were searched."""
    done, values, numbers = 0, np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    if is_first() and state.exists():
        try:
            with state.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                done, values, numbers = int(saved["done"]), saved["values"], saved["numbers"]
            if values.shape != shape or numbers.shape != shape:
                raise ValueError("of another search")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s is not what was written (%s): the search starts again", state, error)
            done, values, numbers = 0, np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    done = broadcast(done)
    if done:
        search.best = Best(broadcast_array(values), broadcast_array(numbers))
        log.info("resuming the search after text %s", f"{done:,}")
    return done


def rank(task: StoredVectors, corpus: StoredVectors, candidates: Best, neighbours: int,
         between: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers [q, k] int64 and cosines [q, k] float64 of the nearest vectors to each task vector, exactly.

    A task vector whose last neighbour and first text that is left out may be in the wrong order in float32 is compared with all
    vectors in float64.

    Args:
      between: called now and then with the number of task vectors so far; it may raise.
    """
    numbers = np.zeros((task.count, neighbours), np.int64)
    similarities = np.zeros((task.count, neighbours))
    unsure: list[np.ndarray] = []
    given = np.asarray(candidates.numbers).astype(np.int64)
    for first, block in task.blocks(_RANKED_QUERIES):
        part = slice(first, first + len(block))
        found = given[part]
        different, place = np.unique(found, return_inverse=True)
        vectors = unit(corpus.take(different))
        exact = cosines(np.repeat(unit(block), found.shape[1], axis=0), vectors[place.ravel()]).reshape(found.shape)
        numbers[part], similarities[part] = ranked(found, exact, neighbours)
        if found.shape[1] < corpus.count:
            sure = certain(similarities[part, -1], np.asarray(candidates.values)[part, -1], corpus.width)
            unsure.append(first + np.flatnonzero(~sure))
        between(part.stop)
    left = np.concatenate([np.zeros(0, np.int64), *unsure])
    if len(left):
        log.info("%s of %s task texts have neighbours that float32 cannot tell apart: they are compared with all texts in float64",
                 f"{len(left):,}", f"{task.count:,}")
    for begin in range(0, len(left), _SCANNED_QUERIES):
        some = left[begin : begin + _SCANNED_QUERIES]
        numbers[some], similarities[some] = scan(unit(task.take(some)), corpus.blocks(_SCANNED_ROWS), neighbours)
        between(task.count)
    return numbers, similarities


def union(numbers: np.ndarray, similarities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each text that is a neighbour, once: its number, ascending, its highest similarity, and the task text that has it.

    Of task texts with the same similarity it is the first one.

    Args:
      numbers, similarities: [q, k].
    """
    texts = np.repeat(np.arange(len(numbers)), numbers.shape[1])
    order = np.lexsort((texts, -similarities.ravel(), numbers.ravel()))
    different, first = np.unique(numbers.ravel()[order], return_index=True)
    best = order[first]
    return different, similarities.ravel()[best], texts[best]
