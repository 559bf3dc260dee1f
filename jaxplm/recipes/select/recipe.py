"""The recipe `select`: choose texts of `data.corpus` for the task of `data.train`, and write them to a file."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.checksums import Records, read_json
from jaxplm.data.selection import importance, sampling
from jaxplm.data.selection.leaks import LeakFinder
from jaxplm.data.selection.passes import CorpusPass, KeptTexts
from jaxplm.data.selection.screening import Screened, screen
from jaxplm.data.sources.texts import Texts, open_texts
from jaxplm.devices import sharding
from jaxplm.devices.processes import broadcast, broadcast_array, is_first, wait_for_all
from jaxplm.engine.signals import StopRequest
from jaxplm.engine.workdir import claim
from jaxplm.errors import Interrupted, UserError
from jaxplm.recipes.select.chosen import Chosen
from jaxplm.recipes.select.meter import Meter
from jaxplm.recipes.select.nearest import NearestTexts
from jaxplm.recipes.select.report import write_report
from jaxplm.recipes.select.selection import Selection
from jaxplm.recipes.select.task_texts import TaskTexts, read_task
from jaxplm.version import VERSION

log = logging.getLogger("jaxplm")

INDEX, TEXTS = "index.json", "texts.jsonl"
_UNFINISHED = "unfinished"  # directory of what an interrupted run has computed; removed at the end


def run(config: Config, workdir: Path, command: str) -> None:
    """Write `workdir/selected` and the report. What an interrupted run has computed is kept, and the files are the same.

    Raises:
      UserError: the config, the data or the workdir cannot be used, or there are fewer texts than are wanted.
      Interrupted: stopped by a signal.
    """
    claim(workdir, config, write=False)
    if broadcast(int(is_first() and _is_finished(workdir))):
        return
    with StopRequest() as stop:
        mesh = sharding.make_mesh(config.mesh)
        sharding.check_batch(config.train.batch_size, 1, mesh)
        data = config.data
        task = read_task(config)
        corpus = open_texts(data.corpus, lines=data.lines, text=data.text)
        identity = hashlib.sha256(f"{corpus.fingerprint} {task.fingerprint}".encode()).hexdigest()
        claim(workdir, config, write=is_first(), corpus=identity[:16])
        _Run(config, workdir, command, corpus, task, mesh, stop).go(identity)


def _is_finished(workdir: Path) -> bool:
    """Return whether the selection is there and is what was written; the log names what is damaged."""
    selected, unfinished = workdir / "selected", workdir / _UNFINISHED
    if not (selected / INDEX).is_file():
        return False
    if damaged := Records(workdir).damaged(selected):
        log.warning("%s is damaged: %s: the texts are selected again", workdir, "; ".join(damaged[:3]))
        (selected / INDEX).unlink()
        return False
    if unfinished.exists():  # the run was killed while it removed them
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("%s is finished: %s texts in %s; choose another --workdir for another run", workdir,
             f"{read_json(selected / INDEX)['texts']:,}", selected / TEXTS)
    return True


class _Run:
    """One selection, from what an interrupted run has left to the end."""

    def __init__(self, config: Config, workdir: Path, command: str, corpus: Texts, task: TaskTexts, mesh: jax.sharding.Mesh,
                 stop: StopRequest) -> None:
        self.config = config
        self.workdir = workdir
        self.command = command
        self.corpus = corpus
        self.task = task
        self.mesh = mesh
        self.stop = stop
        self.unfinished = workdir / _UNFINISHED

    def go(self, identity: str) -> None:
        """Select, write the texts and the report, then the index.

        Args:
          identity: of the corpus and the task.

        Raises:
          UserError: there are fewer texts than are wanted.
          Interrupted: stopped by a signal.
        """
        found: list[Screened] = []
        self._by_first(lambda: found.append(self._screen()))
        size = broadcast(len(found[0].kept) if found else 0)
        kept = broadcast_array(found[0].kept if found else np.zeros(size, bool))
        self._check(kept)
        selected: list[Selection] = []
        if self.config.select.method == "knn":
            nearest = NearestTexts(self.config, self.unfinished, self.task.texts, KeptTexts(self.corpus, kept), self.mesh, self.stop)
            nearest.compute()
            self._by_first(lambda: selected.append(nearest.selection(np.flatnonzero(kept), self.task.rows, self._between)))
        else:
            choose = self._by_weight if self.config.select.method == "dsir" else self._by_chance
            self._by_first(lambda: selected.append(choose(kept)))
        self._by_first(lambda: self._write(found[0], selected[0], identity))
        wait_for_all("selected")

    def _by_first(self, work: Callable[[], None]) -> None:
        """Do some work in the first process, for which the others wait; all raise `Interrupted` where that one does."""
        status = 0
        if is_first():
            try:
                work()
            except Interrupted as stopped:
                status = stopped.status
        if status := broadcast(status):
            raise Interrupted(status, "stopped, what was computed is saved: the same command resumes")

    def _between(self, _: int) -> None:
        """Raise `Interrupted` after a signal; for work of the first process."""
        if self.stop.status:
            raise Interrupted(self.stop.status, "stopped")

    def _metered(self, meter: Meter) -> Callable[[int], None]:
        def between(done: int) -> None:
            meter(done)
            self._between(done)

        return between

    def _screen(self) -> Screened:
        corpus, size = self.corpus, self.corpus.total_bytes
        finder = LeakFinder(self.task.evaluated, self.config.select.leak_ngram)
        with Meter("reading the corpus", share=lambda: corpus.position / size if size else None) as meter:
            screened = screen(corpus, finder, CorpusPass(self.unfinished, "screened"), self._metered(meter))
        by_set = ", ".join(f"{count:,} with data.{name}" for name, count in screened.leaked.items())
        log.info("%s: %s texts; left out: %s that share %d words in a row with an evaluation set (%s), %s that stand in it before",
                 corpus.describe, f"{len(screened.kept):,}", f"{screened.leaks:,}", self.config.select.leak_ngram, by_set or "none given",
                 f"{screened.duplicates:,}")
        return screened

    @property
    def _wanted(self) -> int:
        select = self.config.select
        return select.texts if select.texts is not None else len(self.task.texts) * select.neighbours

    def _check(self, kept: np.ndarray) -> None:
        """Raise a `UserError` where the corpus has fewer texts than are wanted."""
        select, there = self.config.select, int(kept.sum())
        few = f"data.corpus={self.config.data.corpus} has only {there:,} different texts that share nothing with an evaluation set"
        if not there:
            raise UserError(f"data.corpus={self.config.data.corpus}: none of its {len(kept):,} texts is left: all share"
                            f" {select.leak_ngram} words in a row with data.validation or data.test")
        if select.method == "knn" and select.neighbours > there:
            raise UserError(f"select.neighbours={select.neighbours}: {few}")
        if select.method != "knn" and (select.texts or 0) > there:
            raise UserError(f"select.texts={select.texts}: {few}")
        if select.method != "knn" and self._wanted >= there:
            log.warning("all %s texts that may be selected are selected; select.texts=... takes fewer", f"{there:,}")

    def _by_weight(self, kept: np.ndarray) -> Selection:
        """Return a sample in proportion to importance weights."""
        texts, numbers = KeptTexts(self.corpus, kept), np.flatnonzero(kept)
        ngrams = importance.HashedNgrams()
        counted, weighed = CorpusPass(self.unfinished, "counted"), CorpusPass(self.unfinished, "weighed")
        with Meter("counting n-grams", len(numbers)) as meter:
            counted.run(texts, lambda _, some: importance.count(some, ngrams), self._metered(meter), joined=_sum)
        ratios = importance.log_ratios(importance.count(self.task.texts, ngrams), _sum(list(counted.arrays())))
        with Meter("weighing texts", len(numbers)) as meter:
            weighed.run(texts, lambda _, some: importance.log_weights(some, ratios, ngrams), self._metered(meter))
        weights = np.concatenate(list(weighed.arrays()))
        chosen = sampling.highest(weights + sampling.gumbel(self.config.seed, numbers), self._wanted)
        return Selection(numbers[chosen], {"weight": weights[chosen]}, weights=weights)

    def _by_chance(self, kept: np.ndarray) -> Selection:
        """Return a sample in which every text has the same chance."""
        numbers = np.flatnonzero(kept)
        return Selection(numbers[sampling.highest(sampling.random_scores(self.config.seed, numbers), self._wanted)])

    def _write(self, screened: Screened, selection: Selection, identity: str) -> None:
        """Write the texts, the report, and at the end the index."""
        selected = self.workdir / "selected"
        selected.mkdir(exist_ok=True)
        chosen = Chosen(self.config, screened, selection, self.task)
        with Meter("writing the texts", len(screened.kept)) as meter, atomic.open_new(selected / TEXTS) as file:
            between = self._metered(meter)
            place = dict(zip(selection.numbers.tolist(), range(len(selection.numbers)), strict=True))
            for number, text in enumerate(self.corpus):
                chosen.see(number, text)
                if (i := place.get(number)) is not None:
                    file.write(selection.line(i, text, self.corpus.source))
                if number % 1024 == 0:
                    between(number)
        if selection.neighbours is not None and selection.similarities is not None:
            for name, array in (("neighbours", selection.neighbours), ("similarities", selection.similarities.astype(np.float32))):
                with atomic.open_new(selected / f"{name}.npy", "wb") as file:
                    np.save(file, array)
        report = write_report(self.workdir, chosen, self.command)
        index = {"version": VERSION, "fingerprint": identity, **chosen.facts}
        atomic.write_text(selected / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
        Records(self.workdir).add(selected)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        log.info("selected: %s of %s texts in %s", f"{len(selection.numbers):,}", f"{len(screened.kept):,}", selected / TEXTS)
        log.info("report: %s", report)


def _sum(arrays: list[np.ndarray]) -> np.ndarray:
    return np.sum(arrays, axis=0)
