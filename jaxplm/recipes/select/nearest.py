"""Select by neighbours: vectors of the task's texts and of the corpus, and the nearest ones of each task text."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data.checksums import Records
from jaxplm.data.rng import below, fold, key
from jaxplm.data.selection.neighbours import cosines, unit
from jaxplm.data.selection.passes import KeptTexts
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import broadcast, is_first
from jaxplm.engine.signals import StopRequest
from jaxplm.errors import Interrupted, UserError
from jaxplm.recipes.embed.encoder import TextEncoder
from jaxplm.recipes.embed.files import VectorFiles, damaged_files, is_complete, read_index, remove_index
from jaxplm.recipes.embed.model import load_embedding_model
from jaxplm.recipes.embed.writer import VectorWriter, fitted_encoder
from jaxplm.recipes.select.meter import Meter
from jaxplm.recipes.select.search import find_candidates, rank, union
from jaxplm.recipes.select.selection import Selection
from jaxplm.recipes.select.vectors import StoredVectors

log = logging.getLogger("jaxplm")

_CHANCE_PAIRS = 2000
_PURPOSE = 0xC4A2


class NearestTexts:
    """The k nearest texts of a corpus for each text of a task.

    Args:
      config: of the run.
      unfinished: the directory in which vectors and search are kept until the run is finished.
      task: texts.
      corpus: the texts that may be selected.
      mesh: of the run.
      stop: asked after each batch and block.

    Raises:
      UserError: the model cannot be used.
    """

    def __init__(self, config: Config, unfinished: Path, task: Sequence[str], corpus: KeptTexts, mesh: jax.sharding.Mesh,
                 stop: StopRequest) -> None:
        self._config, self._unfinished, self._mesh, self._stop = config, unfinished, mesh, stop
        self._task, self._corpus = task, corpus
        self._model = load_embedding_model(config.model.path, config.embed)
        self._model.config.check_length(config.data.seq_len, "data.seq_len", config.model.path)
        self._encoder: TextEncoder | None = None

    def compute(self) -> None:
        """Compute the vectors and the candidates; all processes call this together.

        Raises:
          Interrupted: stopped by a signal.
          UserError: the vectors of an interrupted run are another model's, or are not finite.
        """
        self._embed("task", self._task, len(self._task))
        self._embed("corpus", self._corpus, len(self._corpus))
        task, corpus = (StoredVectors(self._unfinished / name) if is_first() else None for name in ("task", "corpus"))
        with Meter("searching", len(self._corpus)) as meter:
            def between(done: int) -> None:
                if is_first():
                    meter(done)
                if status := self._stop.agreed():
                    raise Interrupted(status, f"stopped, the search up to text {done:,} is saved: the same command resumes after it")

            self._candidates = find_candidates(task, corpus, self._config.select.neighbours, self._mesh, self._unfinished / "search.npz",
                                               between)

    def selection(self, numbers: np.ndarray, rows: np.ndarray, between: Callable[[int], None]) -> Selection:
        """Return the neighbours of all task texts, after `compute`; the first process calls this.

        Args:
          numbers: [n], of the corpus's texts.
          rows: of the task's texts.
          between: called now and then with the number of task texts so far; it may raise.
        """
        task, corpus = StoredVectors(self._unfinished / "task"), StoredVectors(self._unfinished / "corpus")
        with Meter("comparing in float64", task.count) as meter:
            def metered(done: int) -> None:
                meter(done)
                between(done)

            neighbours, similarities = rank(task, corpus, self._candidates, self._config.select.neighbours, metered)
        chosen, best, text = union(neighbours, similarities)
        return Selection(numbers[chosen], {"similarity": best, "task_row": rows[text]}, numbers[neighbours], similarities,
                         chance=self._by_chance(task, corpus))

    def _by_chance(self, task: StoredVectors, corpus: StoredVectors) -> np.ndarray:
        """Return the cosines of pairs that were drawn by chance: what a similarity is to be compared with."""
        pairs = np.arange(_CHANCE_PAIRS)
        one, other = (np.sort(below(fold(key(self._config.seed, _PURPOSE, which), pairs), vectors.count))
                      for which, vectors in enumerate((task, corpus)))
        shuffled = np.argsort(fold(key(self._config.seed, _PURPOSE, 2), pairs), kind="stable")
        return cosines(unit(task.take(one)), unit(corpus.take(other))[shuffled])

    def _embed(self, name: str, texts: Iterable[str], count: int) -> None:
        """Write the vectors of some texts, unless they are there."""
        directory = self._unfinished / name
        identity = self._model.fingerprint()
        if broadcast(int(is_first() and self._has(directory, identity))):
            return
        config, settings = self._config, self._config.embed
        if self._encoder is None:  # rows of one length for both, so that it is compiled once
            self._encoder = fitted_encoder(self._corpus, self._model, settings, self._mesh, resolve_compute(config.compute, self._mesh),
                                           seq_len=config.data.seq_len, batch_size=config.train.batch_size)
        files = VectorFiles(directory, self._model.config.width, np.dtype(settings.dtype), settings.shard_rows, identity,
                            by_token=False) if is_first() else None
        log.info("embedding %s texts of the %s", f"{count:,}", name)
        try:
            VectorWriter(texts, self._model.tokenizer, self._encoder, files, self._stop, seq_len=config.data.seq_len,
                         shard_rows=settings.shard_rows, total=count).write()
            if files:
                files.finish_arrays()
                index = files.finish({"identity": identity})
                if index["truncated"]:
                    log.warning("%s of the %s texts of the %s are longer than data.seq_len=%d tokens: their beginnings are compared",
                                f"{index['truncated']:,}", f"{count:,}", name, config.data.seq_len)
        finally:
            if files:
                files.close()

    def _has(self, directory: Path, identity: str) -> bool:
        """Return whether all vectors are there and are what was written.

        Raises:
          UserError: they are another model's.
        """
        if not is_complete(directory):
            return False
        if damaged := damaged_files(directory, Records(directory)):
            log.warning("%s is damaged: %s: the vectors are computed again", directory, "; ".join(damaged[:3]))
            remove_index(directory)
            return False
        if read_index(directory)["identity"] != identity:
            raise UserError(f"{directory} was written with other weights or another tokenizer; choose another --workdir")
        return True
