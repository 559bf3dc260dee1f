"""Labelled rows of a task, in memory: texts or pairs with a label, tokens with a label each, questions about a context.

Every row that could be parsed is kept, in its order and with its number in the input, so that predictions can be
written row by row. Rows that cannot be trained on (an empty text, no label) are counted and reported, never dropped silently.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jaxplm.data.labelled.tag_schemes import rewritten
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

# Why a row cannot be trained on, and how the warning says it. The warning keeps this order.
_FAULTS = {
    "empty": "with an empty text",
    "missing": "without a label",
    "mismatch": "whose tags do not match their tokens",
    "no_answer": "whose answer is not in their context",
    "malformed": "that could not be parsed",
}


class Example(NamedTuple):
    """One labelled row, as its kind of task has read it.

    `fault` is '' or why the row cannot be trained on: 'empty', 'missing' (no label), 'mismatch' or 'no_answer'.
    """

    text: str
    pair: str | None = None
    tokens: list[str] | None = None
    label: Any = None
    id: str | None = None
    fault: str = ""


@dataclass(frozen=True, eq=False)
class Examples:
    """n labelled rows.

    Attributes:
      describe: one name for the user.
      rows: [n] int64, the number of each row in the input, from 0; rows that could not be parsed have numbers too.
      texts: n texts; of questions about a context, the question.
      pairs: n second texts, None where the task has none; of questions, the context.
      tokens: n lists of tokens, where a row is a list of tokens with a label each; else None.
      labels: n labels, None where the row has none. What a label is depends on the kind of task.
      ids: n ids, None where the data have none.
      faults: n of '' or why a row cannot be trained on; see `Example`.
      malformed: how many rows could not be parsed; they are not among the n.
      characters: the tokens are the characters of the text, spaces among them.
      scheme: how tags mark entities, 'IOB2' or 'BIOES'; '' where labels are no such tags.
      classes: the names of all classes in their order, where the data or `data.label_names` say them; () where they do not.
      reading: how tagged sentences were read.
    """

    describe: str
    rows: np.ndarray
    texts: list[str]
    pairs: list[str] | None
    tokens: list[list[str]] | None
    labels: list[Any]
    ids: list[str] | None
    faults: list[str]
    malformed: int = 0
    characters: bool = False
    scheme: str = ""
    classes: tuple[str, ...] = ()
    reading: TaggedReading = TaggedReading()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> np.ndarray:
        """[n] bool: the row has a label."""
        return np.array([label is not None for label in self.labels], bool)

    def select(self, index: Iterable[int]) -> "Examples":
        """Return these examples, in this order. Rows that could not be parsed are not counted in the result."""
        index = [int(i) for i in index]

        def pick(values: list | None) -> list | None:
            return None if values is None else [values[i] for i in index]

        return replace(
            self, rows=self.rows[index], texts=pick(self.texts), pairs=pick(self.pairs), tokens=pick(self.tokens),
            labels=pick(self.labels), ids=pick(self.ids), faults=pick(self.faults), malformed=0,
        )

    def in_scheme(self, scheme: str) -> "Examples":
        """Return the same examples with tags in the scheme of a label set, 'IOB2' or 'BIOES'; unchanged where either marks no entities."""
        if not self.scheme or not scheme or self.scheme == scheme:
            return self
        return replace(self, scheme=scheme, labels=[tags and rewritten(tags, scheme) for tags in self.labels])

    def trainable(self) -> "Examples":
        """Return the examples that can be trained on; one warning says how many rows are left out, and why.

        Raises:
          UserError: there are none.
        """
        kept = [i for i, fault in enumerate(self.faults) if not fault]
        summary = self._fault_summary(tuple(_FAULTS))
        if not kept:
            raise UserError(f"{self.describe}: no row can be trained on: {summary or 'there are none'}")
        if summary:
            log.warning("%s: %d of %d rows left out of training: %s", self.describe,
                        len(self) - len(kept) + self.malformed, len(self) + self.malformed, summary)
        return self.select(kept)

    def warn_unscored(self) -> None:
        """Log one warning where rows are predicted but cannot be scored, or cannot even be predicted."""
        if summary := self._fault_summary(("missing", "mismatch", "malformed")):
            log.warning("%s: rows that are not scored: %s%s", self.describe, summary,
                        "; rows that could not be parsed have no prediction" if self.malformed else "")

    def _fault_summary(self, faults: tuple[str, ...]) -> str:
        counts = Counter(self.faults) + Counter(malformed=self.malformed)
        return ", ".join(f"{counts[fault]:,} {_FAULTS[fault]}" for fault in faults if counts[fault])
