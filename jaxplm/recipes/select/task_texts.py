"""The texts of the task: those that texts are selected for, and those of which nothing may leak."""

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from jaxplm.config import Config
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.sources.rows import source_name
from jaxplm.data.sources.same_files import same_files
from jaxplm.data.sources.specs import find_sources
from jaxplm.data.sources.texts import open_corpus
from jaxplm.errors import UserError
from jaxplm.recipes.finetune.labelled_sets import read_sets

log = logging.getLogger("jaxplm")


@dataclass(frozen=True, eq=False)
class TaskTexts:
    """n texts of a task's training set, and its evaluation sets.

    Attributes:
      describe: the training set, for messages.
      texts: n; of a pair, both texts.
      rows: [n] int64, the number of each text's row in `data.train`, from 0.
      evaluated: {"validation": texts, "test": texts}, the sets that there are.
    """

    describe: str
    texts: list[str]
    rows: np.ndarray
    evaluated: dict[str, list[str]]

    @property
    def fingerprint(self) -> str:
        """Hash of everything that was read."""
        return hashlib.sha256(repr((self.texts, self.rows.tolist(), self.evaluated)).encode("utf-8", "surrogatepass")).hexdigest()


def read_task(config: Config) -> TaskTexts:
    """Read the task's sets: with `task.kind` as fine-tuning reads them, else as plain texts.

    Rows of `data.train` that fine-tuning holds out for validation are such rows here too.

    Raises:
      UserError: a set cannot be read, or is also given as `data.corpus`.
    """
    data = config.data
    _refuse_shared(config)
    if config.task.kind:
        sets = read_sets(config)
        evaluated = {name: _separate(examples) for name, examples in sets.evaluated.items()}
        task = TaskTexts(data.train, _joined(sets.train), sets.train.rows, evaluated)
    else:
        texts = list(open_corpus(data, data.train, max_rows=data.max_rows))
        given = {"validation": data.validation, "test": data.test}
        evaluated = {name: list(open_corpus(data, spec, split=name)) for name, spec in given.items() if spec}
        task = TaskTexts(data.train, texts, np.arange(len(texts)), evaluated)
    if missing := [f"data.{name}" for name in ("validation", "test") if name not in task.evaluated]:
        log.warning("%s: no such set is given, so no text of data.corpus is left out because of it", ", ".join(missing))
    return task


def _refuse_shared(config: Config) -> None:
    data = config.data
    sets = {"data.train": data.train, "data.validation": data.validation, "data.test": data.test}
    for name, spec in sets.items():
        if spec and (shared := same_files(data.corpus, spec)):
            raise UserError(f"{shared[0]} is given as data.corpus and as {name}: the task's own texts would be selected;"
                            " take it out of data.corpus")
    names = {source_name(source) for source in find_sources(data.train)} & {source_name(source) for source in find_sources(data.corpus)}
    if names:  # hub names and built-ins: files are compared above
        raise UserError(f"{min(names)} is given as data.corpus and as data.train: the task's own texts would be selected;"
                        " take it out of data.corpus")


def _joined(examples: Examples) -> list[str]:
    if examples.pairs is None:
        return examples.texts
    return [f"{text}\n{pair}" for text, pair in zip(examples.texts, examples.pairs, strict=True)]


def _separate(examples: Examples) -> list[str]:
    """Return all texts of a set, each context of several questions once."""
    return list(dict.fromkeys([*examples.texts, *(examples.pairs or [])]))
