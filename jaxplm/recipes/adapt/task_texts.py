"""The task as a comparison sees it: the texts of its training rows for TAPT, and what must not be in two sets."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from jaxplm.config import Config
from jaxplm.data import atomic
from jaxplm.data.corpus.holdout import hold_out_rows
from jaxplm.data.labelled.overlap import overlap
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.sources.same_files import same_files
from jaxplm.errors import UserError
from jaxplm.recipes.adapt.plan import TASK_TEXTS
from jaxplm.tasks.kinds import KINDS

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class TaskRows:
    """What was read of the task.

    Attributes:
      texts: those of the training rows, as TAPT reads them.
      rows: of the training set, without those that are held out for validation.
      test_rows: of the test set; 0 where there is none.
      notes: lines that a reader of the table must know.
    """

    texts: tuple[str, ...]
    rows: int
    test_rows: int
    notes: tuple[str, ...]


def read_task(config: Config, workdir: Path) -> TaskRows:
    """Read the task's sets, warn of rows that are in two of them, and write the texts of the training rows to task/texts.jsonl.

    Rows that fine-tuning holds out for validation are left out: TAPT sees the training texts alone.

    Raises:
      UserError: a set cannot be read, or a file of the task is also in the corpus.
    """
    data, kind = config.data, KINDS[config.task.kind]
    for field, corpus in (("data.corpus", data.corpus), ("adapt.off_domain", config.adapt.off_domain), ("data.general", data.general)):
        for name in ("train", "validation", "test"):
            if corpus and getattr(data, name) and (shared := same_files(getattr(data, name), corpus)):
                raise UserError(f"{shared[0]} is given as data.{name} and is also in {field}={corpus}: the texts of the task must not be"
                                " part of the corpus; take the file out of it")
    train = read_examples(data.train, kind, data).trainable()
    if data.validation:
        held = read_examples(data.validation, kind, data, split="validation", reading=train.reading)
    else:
        kept, rest = hold_out_rows(kind.group_keys(train), data.held_out)
        train, held = train.select(kept), train.select(rest)
    sets = {"data.validation": held}
    if data.test:
        sets["data.test"] = read_examples(data.test, kind, data, split="test", labelled=False, reading=train.reading)
    texts = list(dict.fromkeys(key.strip() for key in kind.group_keys(train)))  # of questions, the contexts
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path = workdir / TASK_TEXTS
    if not path.exists() or path.read_text("utf-8") != lines:
        atomic.write_text(path, lines)
    notes = tuple(_overlaps(kind.group_keys(train), {name: kind.group_keys(examples) for name, examples in sets.items()}))
    for note in notes:
        log.warning("%s", note)
    return TaskRows(tuple(texts), len(train), len(sets["data.test"]) if data.test else 0, notes)


def _overlaps(train: Sequence[str], sets: dict[str, Sequence[str]]) -> Iterator[str]:
    """Yield a warning for each set with rows that are in the training set too."""
    for name, keys in sets.items():
        shared = overlap(train, keys, examples=1)
        if shared.count:
            yield (f"{shared.count:,} of the {shared.total:,} rows of {name} are also in data.train: scores on them are too good; take them"
                   f" out of one of the two (the first: {shorten(shared.examples[0], 60)!r})")
