"""Labelled rows of a task: one text or a pair with a label, a tagged sentence, a question about a context.

Every row that could be parsed is kept, in its order and with its number in the input, so that predictions can be
written row by row. What cannot be trained on (an empty text, no label) is counted and told, never dropped unseen.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from jaxplm.data.labelled.label_values import Answers, is_empty, read_answers, read_class, read_classes, read_list, read_number, read_text
from jaxplm.data.labelled.tag_schemes import detect_scheme, to_iob2
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.data.sources.conll import join_tokens
from jaxplm.data.sources.rows import Source, SourceRows, source_name
from jaxplm.data.sources.specs import find_sources
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

KINDS = ("classify", "multilabel", "regress", "tag", "qa")

# A set of tags counts as one of characters where so large a share of its tokens is white space or one character long.
_SPACE_SHARE, _SINGLE_SHARE = 0.05, 0.95

# How the warning calls what is wrong with a row, in its order.
_FAULTS = {
    "empty": "with an empty text",
    "missing": "without a label",
    "mismatch": "whose tags do not match their tokens",
    "no_answer": "whose answer is not in their context",
    "malformed": "that could not be parsed",
}


class DataFields(Protocol):
    """The fields of `jaxplm.config.Data` that say where in a row things stand."""

    text: str
    text_pair: str
    label: str
    tokens: str
    tags: str

    @property
    def lines(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Examples:
    """n labelled rows.

    Attributes:
      kind: of the task.
      describe: one name for the user.
      rows: [n] int64, the number of each row in the input, from 0; rows that could not be parsed have numbers too.
      texts: n texts; tag: the sentence; qa: the question.
      pairs: n second texts, None where the task has none; qa: the context.
      tokens: tag: n lists of tokens; else None.
      labels: n labels, None where the row has none. classify: a name; multilabel: a tuple of names; regress: a
        float; tag: a list of tags, as long as the tokens; qa: `Answers`.
      ids: n ids of questions; None where the data have none.
      faults: n of '' or why a row cannot be trained on: 'empty', 'missing', 'mismatch', 'no_answer'.
      malformed: how many rows could not be parsed; they are not among the n.
      characters: tag: the tokens are the characters of the text, spaces among them.
      scheme: tag: how the tags mark entities, 'IOB2' or 'BIOES' ('IOB1' has been converted); '' for plain tags.
    """

    kind: str
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

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> np.ndarray:
        """[n] bool: the row has a label."""
        return np.array([label is not None for label in self.labels], bool)

    def select(self, index: Iterable[int]) -> "Examples":
        """These examples, in this order; rows that could not be parsed are not among them."""
        index = [int(i) for i in index]

        def pick(values: list | None) -> list | None:
            return None if values is None else [values[i] for i in index]

        return replace(
            self, rows=self.rows[index], texts=pick(self.texts), pairs=pick(self.pairs), tokens=pick(self.tokens),
            labels=pick(self.labels), ids=pick(self.ids), faults=pick(self.faults), malformed=0,
        )

    def in_scheme(self, scheme: str) -> "Examples":
        """The same with tags in the scheme of a label set, where they can be converted: BIOES to IOB2."""
        if (self.scheme, scheme) != ("BIOES", "IOB2"):
            return self
        return replace(self, scheme=scheme, labels=[tags and to_iob2(tags, "BIOES") for tags in self.labels])

    def trainable(self) -> "Examples":
        """The examples that can be trained on; one warning says how many rows are left out, and why.

        Raises:
          UserError: none can.
        """
        kept = [i for i, fault in enumerate(self.faults) if not fault]
        told = self._told((*_FAULTS,))
        if not kept:
            raise UserError(f"{self.describe}: no row can be trained on: {told or 'there are none'}")
        if told:
            log.warning("%s: %d of %d rows left out of training: %s", self.describe,
                        len(self) - len(kept) + self.malformed, len(self) + self.malformed, told)
        return self.select(kept)

    def warn_unscored(self) -> None:
        """One warning where rows are predicted but cannot be scored, or not even predicted."""
        if told := self._told(("missing", "mismatch", "malformed")):
            log.warning("%s: rows that are not scored: %s%s", self.describe, told,
                        "; those have no prediction" if self.malformed else "")

    def _told(self, kinds: tuple[str, ...]) -> str:
        counts = Counter(self.faults) + Counter(malformed=self.malformed)
        return ", ".join(f"{counts[kind]:,} {_FAULTS[kind]}" for kind in kinds if counts[kind])


def read_examples(spec: str, kind: str, data: DataFields, *, split: str = "train", max_rows: int | None = None,
                  labelled: bool = True) -> Examples:
    """Reads the rows of a task into memory.

    classify: `data.text`, optionally `data.text_pair`, and `data.label`, whose numbers are taken as names.
    multilabel: the label is a list, or a string whose names are separated by `|`, or by `,` where it has no `|`; an
    empty list says that no label applies. regress: the label is a number. tag: `data.tokens` and `data.tags`, lists
    (or strings of words with spaces between) of equal length; files of the endings .conll .tsv .txt are CoNLL: token
    first, tag last. qa: SQuAD 1.1 or 2.0, or rows with `question`, `context` and `answers`.

    Args:
      spec: see `specs.find_sources`.
      kind: one of `KINDS`.
      data: names of columns, and how .txt files are read (`lines`).
      split: of hub names and built-ins.
      max_rows: use the first so many rows that can be trained on; without `labelled`, that hold a text.
      labelled: False: labels are read where there are some, and may be absent, as in .txt files.

    Returns:
      The examples, in the order of the input.

    Raises:
      UserError: nothing there, unreadable files, a missing column, a label of the wrong kind, no row, or, with
        `labelled`, no label at all.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    sources = find_sources(spec, split)
    made = _Builder(kind, data, labelled)
    malformed = 0
    for source in sources:
        before = made.number + malformed
        for row in _source_rows(source, kind, data, labelled):
            if row is None:
                malformed += 1
                continue
            number = made.number + malformed
            made.add(row, f"{source_name(source)} row {number - before + 1}", number)
            if max_rows is not None and made.usable >= max_rows:
                return made.done(spec, malformed)
    return made.done(spec, malformed)


class _Builder:
    """Collects rows into `Examples`."""

    def __init__(self, kind: str, data: DataFields, labelled: bool) -> None:
        self._kind, self._data, self._labelled = kind, data, labelled
        self.number = self.usable = 0
        self._rows: list[int] = []
        self._texts: list[str] = []
        self._pairs: list[str] = []
        self._tokens: list[list[str]] = []
        self._labels: list[Any] = []
        self._ids: list[str] = []
        self._faults: list[str] = []

    def add(self, row: Row, where: str, number: int) -> None:
        fault, label = "", None
        if self._kind == "tag":
            tokens = [read_text(token, where) for token in read_list(row.get(self._data.tokens), where, self._data.tokens) or []]
            tags = row.get(self._data.tags)
            if is_empty(tags):
                fault = "missing"
            else:
                label = [read_class(tag, where) or "" for tag in read_list(tags, where, self._data.tags) or []]
                if len(label) != len(tokens) or "" in label:
                    fault, label = "mismatch", None
            self._tokens.append(tokens)
            text = join_tokens(tokens)
        elif self._kind == "qa":
            text, context = (read_text(row.get(column), where) for column in ("question", "context"))
            self._pairs.append(context)
            self._ids.append(str(row.get("id", number)))
            label = read_answers(row, context, where)
            fault = "missing" if label is None else "no_answer" if label.texts and not label.spans else ""
            fault = fault if context.strip() else "empty"
        else:
            text = read_text(row.get(self._data.text), where)
            if self._data.text_pair:
                self._pairs.append(read_text(row.get(self._data.text_pair), where))
            read = {"classify": read_class, "multilabel": read_classes, "regress": read_number}[self._kind]
            label = read(row.get(self._data.label), where)
            fault = "missing" if label is None else ""
        # A pair with one empty side can be told apart from others, so it is trained on; two empty ones cannot.
        if not text.strip() and not (self._pairs and self._pairs[-1].strip() and self._kind != "qa"):
            fault = "empty"
        self._texts.append(text)
        self._labels.append(label)
        self._faults.append(fault)
        self._rows.append(number)
        self.number += 1
        self.usable += int(fault != "empty" and not (self._labelled and fault))

    def done(self, spec: str, malformed: int) -> Examples:
        describe = spec if len(spec) <= 80 else spec[:77] + "…"
        if not self.number:
            raise UserError(f"{describe}: no row found" + (f" ({malformed} could not be parsed)" if malformed else ""))
        if self._labelled and all(label is None for label in self._labels):
            wrong = self._faults.count("mismatch")
            raise UserError(f"{describe}: none of its {self.number:,} rows has a label"
                            + (f": {wrong:,} have tags that do not match their tokens" if wrong else ""))
        if moved := sum(label.moved for label in self._labels if isinstance(label, Answers)):
            log.warning("%s: %d answers stand elsewhere in their context than answer_start says, and were found there", describe, moved)
        tag, pair = self._kind == "tag", self._kind == "qa" or bool(self._data.text_pair and self._kind != "tag")
        characters = tag and _are_characters(self._tokens)
        if characters:
            self._texts = list(map("".join, self._tokens))
        scheme = _settle_scheme(self._labels, characters, describe) if tag else ""
        return Examples(
            self._kind, describe, np.array(self._rows, np.int64), self._texts, self._pairs if pair else None,
            self._tokens if tag else None, self._labels, self._ids if self._kind == "qa" else None, self._faults,
            malformed, characters, scheme,
        )


def _are_characters(sentences: list[list[str]]) -> bool:
    total = spaces = single = 0
    for tokens in sentences:
        total += len(tokens)
        spaces += sum(token.isspace() for token in tokens)
        single += sum(len(token) == 1 for token in tokens)
    return total > 0 and (spaces >= _SPACE_SHARE * total or single >= _SINGLE_SHARE * total)


def _settle_scheme(labels: list[list[str] | None], characters: bool, describe: str) -> str:
    """Converts IOB1 to IOB2 in place, and BIOES too where a token of the model covers several tags; the scheme."""
    given = [tags for tags in labels if tags]
    names = {tag for tags in given for tag in tags}
    if "O" not in names or not any(name.startswith(("B-", "I-", "S-", "E-")) or name in ("B", "I") for name in names):
        return ""
    try:
        scheme = detect_scheme(given)
    except UserError as error:
        raise UserError(f"{describe}: {error}") from None
    if scheme == "IOB1" or (scheme == "BIOES" and characters):
        log.info("%s: %s tags, converted to IOB2", describe, scheme)
        labels[:] = [tags and to_iob2(tags, scheme) for tags in labels]
        return "IOB2"
    return scheme


def _source_rows(source: Source, kind: str, data: DataFields, labelled: bool) -> SourceRows:
    """Return the rows of one source with the columns of a kind of task."""
    if kind == "qa":
        needed, fields = {"question": "", "context": ""}, {"answers": ""}
        optional = ("answers", "is_impossible", "id")
    elif kind == "tag":
        needed, fields, optional = {data.tokens: "data.tokens"}, {data.tags: "data.tags"}, (data.tags,)
    else:
        needed, fields, optional = {data.text: "data.text"}, {data.label: "data.label"}, (data.label,)
        if data.text_pair:
            needed[data.text_pair] = "data.text_pair"
    wanted = WantedColumns(needed | (fields if labelled else {}), optional, data.text, data.label,
                           tagged=(data.tokens, data.tags) if kind == "tag" else None)
    return SourceRows(source, wanted, lines=data.lines, every_line=True)
