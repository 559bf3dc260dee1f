"""The labelled sets of a run: train, validation and test, read and encoded."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from jaxplm.config import Config
from jaxplm.data.corpus.holdout import hold_out_rows
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_forms import LabelForms, without_mark
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.labelled.spread import spread_rows
from jaxplm.data.sources.builtin import brings
from jaxplm.data.sources.same_files import same_files
from jaxplm.errors import UserError
from jaxplm.tasks.kinds import KINDS, TaskKind
from jaxplm.tasks.kinds.kind import EvalSet

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class LabelledSets:
    """The rows of a task, and its labels."""

    kind: TaskKind
    train: Examples
    evaluated: Mapping[str, Examples]  # 'validation', and 'test' if there is one
    labels: LabelSet
    facts: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of everything that was read."""
        total = hashlib.sha256()
        for examples in (self.train, *self.evaluated.values()):
            total.update(repr((examples.texts, examples.pairs, examples.labels)).encode())
        return total.hexdigest()[:16]

    @property
    def has_unanswerable(self) -> bool:
        """Whether some of the questions that are trained on have no answer."""
        return self.kind.has_unanswerable(self.train)

    def eval_set(self, examples: Examples, encoded: Encoded, config: Config) -> EvalSet:
        """Return one of the sets as the trained model sees it."""
        return EvalSet(self.kind, examples, encoded, self.labels, config.task, self.has_unanswerable)


def read_sets(config: Config) -> LabelledSets:
    """Read `data.train`, `data.validation` and `data.test`.

    Without `data.validation` a built-in task brings its own; from anything else a fixed share is held out, rows of the
    same text on the same side, and the log says so. A built-in task brings its test set too.

    Raises:
      UserError: see `read_examples` and `TaskKind.label_set`; or the training file is also given as another set.
    """
    data, kind = config.data, KINDS[config.task.kind]
    for name, other in (("data.validation", data.validation), ("data.test", data.test)):
        if other and (shared := same_files(data.train, other)):
            raise UserError(f"{shared[0]} is given as data.train and as {name}: scores on texts that were trained on mean nothing")
    spread = data.max_rows if data.rows_chosen == "spread" else None
    train = read_examples(data.train, kind, data, max_rows=None if spread else data.max_rows).trainable()
    forms = LabelForms.of_training(train, () if kind.per_token else data.label_names)  # tags were named when they were read
    train = forms.apply(train)

    def read_as_training(source: str, split: str, *, labelled: bool) -> Examples:
        examples = read_examples(source, kind, data, split=split, labelled=labelled, reading=train.reading)
        return without_mark(forms.apply(examples), train)

    if data.validation or brings(data.train, "validation"):
        source = data.validation or data.train
        validation = read_as_training(source, "validation", labelled=True)
    else:
        kept, held = hold_out_rows(kind.group_keys(train), data.held_out)
        train, validation = train.select(kept), train.select(held)
        source = f"{len(validation):,} of the {len(kept) + len(held):,} rows of {data.train}"
        log.info("no data.validation: %s are held out", source)
    if spread and spread < len(train):  # after rows were held out: the validation set is the same for samples of all sizes
        train = train.select(spread_rows(kind.group_keys(train), train.labels, spread))
    evaluated = {"validation": validation}
    if data.test or brings(data.train, "test"):
        evaluated["test"] = read_as_training(data.test or data.train, "test", labelled=False)
    if not evaluated["validation"].labelled.any():
        raise UserError(f"{evaluated['validation'].describe}: none of its {len(evaluated['validation']):,} rows has a label")
    for examples in evaluated.values():
        examples.warn_unscored()
    evaluated = {name: examples.in_scheme(train.scheme) for name, examples in evaluated.items()}
    labels = kind.label_set(train, evaluated.values())
    facts = {"training rows": f"{data.train}: {len(train):,}", "validation rows": f"{source}: {len(validation):,}"}
    if "test" in evaluated:
        facts["test rows"] = f"{data.test or data.train}: {len(evaluated['test']):,}"
    if labels.names:
        facts["labels"] = f"{len(labels)}: {', '.join(labels.names[:12])}" + (", …" if len(labels) > 12 else "")
    return LabelledSets(kind, train, evaluated, labels, facts)
