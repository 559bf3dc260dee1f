"""The labelled sets of a run: train, validation and test, read, told about, and cut into units."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxplm.config import Config
from jaxplm.data.corpus.holdout import hold_out_rows
from jaxplm.data.labelled.examples import Examples, read_examples
from jaxplm.data.labelled.label_set import LabelSet, label_set
from jaxplm.data.labelled.units import Units, make_units
from jaxplm.data.sources.same_files import same_files
from jaxplm.errors import UserError
from jaxplm.tasks.results import Reading

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class LabelledSets:
    """The rows of a task, and its labels."""

    train: Examples
    evaluated: Mapping[str, Examples]  # 'validation', and 'test' if there is one
    labels: LabelSet
    facts: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Of everything that was read."""
        total = hashlib.sha256()
        for examples in (self.train, *self.evaluated.values()):
            total.update(repr((examples.texts, examples.pairs, examples.labels)).encode())
        return total.hexdigest()[:16]

    @property
    def may_lack(self) -> bool:
        """Whether questions may have no answer: some of those trained on have none."""
        return self.train.kind == "qa" and any(not label.texts for label in self.train.labels if label is not None)

    def reading(self, examples: Examples, units: Units, config: Config) -> Reading:
        return Reading(examples, units, self.labels, config.task.max_answer, config.task.rules, self.may_lack)


def read_sets(config: Config) -> LabelledSets:
    """Reads `data.train`, `data.validation` and `data.test`.

    Without `data.validation` a built-in task brings its own; from anything else a fixed share is held out, rows of the
    same text on the same side, and the log says so. A built-in task brings its test set too.

    Raises:
      UserError: see `read_examples` and `label_set`; or the training file is also given as another set.
    """
    data, kind = config.data, config.task.kind
    for name, other in (("data.validation", data.validation), ("data.test", data.test)):
        if other and (shared := same_files(data.train, other)):
            raise UserError(f"{shared[0]} is given as data.train and as {name}: scores on texts that were trained on mean nothing")
    train = read_examples(data.train, kind, data, max_rows=data.max_rows).trainable()
    builtin = data.train.startswith("builtin:") and "," not in data.train
    if data.validation or builtin:
        validation = read_examples(data.validation or data.train, kind, data, split="validation")
        source = data.validation or data.train
    else:
        keys = train.pairs if kind == "qa" else [f"{a}\n{b}" for a, b in zip(train.texts, train.pairs or [""] * len(train), strict=True)]
        assert keys is not None
        kept, held = hold_out_rows(keys, data.held_out)
        train, validation = train.select(kept), train.select(held)
        source = f"{len(validation):,} of the {len(kept) + len(held):,} rows of {data.train}"
        log.info("no data.validation: %s are held out", source)
    evaluated = {"validation": validation}
    if data.test or builtin:
        evaluated["test"] = read_examples(data.test or data.train, kind, data, split="test", labelled=False)
    for examples in evaluated.values():
        examples.warn_unscored()
    evaluated = {name: examples.in_scheme(train.scheme) for name, examples in evaluated.items()}
    labels = label_set(train, *evaluated.values())
    facts = {"training rows": f"{data.train}: {len(train):,}", "validation rows": f"{source}: {len(validation):,}"}
    if "test" in evaluated:
        facts["test rows"] = f"{data.test or data.train}: {len(evaluated['test']):,}"
    if labels.names:
        facts["labels"] = f"{len(labels)}: {', '.join(labels.names[:12])}" + (", …" if len(labels) > 12 else "")
    return LabelledSets(train, evaluated, labels, facts)


def units_of(examples: Examples, tokenizer: Any, labels: LabelSet, config: Config) -> Units:
    return make_units(examples, tokenizer, labels, examples.kind, config.data.seq_len, config.task.overlap)
