"""From files, hub data sets and built-in sets to `Examples`. A kind of task says which columns it needs and reads each row."""

import logging
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.sources.columns import Row, WantedColumns
from jaxplm.data.sources.conll import Layout
from jaxplm.data.sources.rows import Source, SourceRows, source_name
from jaxplm.data.sources.specs import find_sources
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

_LONGEST_SPEC = 80  # characters of `data.train` that messages repeat

class DataFields(Protocol):
    """The fields of `jaxplm.config.Data` that name the columns of a row, how .txt files are read, and what tagged sentences are."""

    text: str
    text_pair: str
    label: str
    tokens: str
    tags: str

    @property
    def lines(self) -> str: ...

    @property
    def label_names(self) -> tuple[str, ...]: ...

    @property
    def token_unit(self) -> str: ...

    @property
    def tag_scheme(self) -> str: ...


class Columns(NamedTuple):
    """The columns of a kind of task. Each dict is {column: the field of the config that names it, '' if none does}."""

    needed: dict[str, str]  # in every set
    labels: dict[str, str]  # in sets that must be labelled
    optional: tuple[str, ...] = ()  # read where they exist
    tagged: tuple[str, str] | None = None  # (tokens, labels): .conll, .tsv and .txt files have one token per line, its label last


class RowReader(Protocol):
    """How a kind of task reads rows; `jaxplm.tasks.kinds.kind.TaskKind` is one."""

    def columns(self, data: DataFields) -> Columns:
        """Return the columns of the kind."""
        ...

    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        """Read one row.

        Args:
          row: {column: value}.
          data: the names of the columns.
          where: the row's place for messages: file and row number.
          number: the row's number in the input, from 0.

        Raises:
          UserError: a label of the wrong type.
        """
        ...

    def settle(self, examples: Examples, reading: TaggedReading) -> Examples:
        """Return the examples as the kind uses them, after a look at all of them together; see `TaskKind.settle`."""
        ...


def read_examples(spec: str, kind: RowReader, data: DataFields, *, split: str = "train", max_rows: int | None = None,
                  labelled: bool = True, reading: TaggedReading | None = None) -> Examples:
    """Read the rows of a task into memory.

    Args:
      spec: see `specs.find_sources`.
      kind: says which columns are needed and reads each row.
      data: names of columns, and how .txt files are read (`lines`).
      split: of hub names and built-ins.
      max_rows: use the first `max_rows` rows that can be trained on; without `labelled`, that hold a text.
      reading: of the training set, for tagged sentences; None: this is the training set. Fields of `data` overrule it.
      labelled: False: labels are read where there are some, and may be absent, as in .txt files.

    Returns:
      The examples, in the order of the input.

    Raises:
      UserError: nothing there, unreadable files, a missing column, a label of the wrong type, no row, or, with
        `labelled`, no label at all.
    """
    sources = find_sources(spec, split)
    columns = kind.columns(data)
    reading = (reading or TaggedReading()).overruled(data)
    examples: list[Example] = []
    numbers: list[int] = []
    malformed = usable = 0
    for source in sources:
        before = len(examples) + malformed
        rows = _source_rows(source, columns, data, labelled, reading.layout)
        for row in rows:
            if row is None:
                malformed += 1
                continue
            number = len(examples) + malformed
            example = kind.read(row, data, f"{source_name(source)} row {number - before + 1}", number)
            examples.append(example)
            numbers.append(number)
            usable += example.fault != "empty" and not (labelled and example.fault)
            if max_rows is not None and usable >= max_rows:
                break
        reading = _with_layout(reading, rows.layout, source)
        if max_rows is not None and usable >= max_rows:
            break
    return kind.settle(_collected(examples, numbers, spec, malformed, labelled), reading)


def _with_layout(reading: TaggedReading, layout: Layout | None, source: Source) -> TaggedReading:
    """Return the reading with the columns of the first CoNLL file; warn of a later file that has others."""
    if layout is None or layout == reading.layout:
        return reading
    if reading.layout is None:
        return replace(reading, layout=layout)
    log.warning("%s: tokens are taken from column %d, not from column %d as in the training set (set data.tokens to a column's number)",
                source_name(source), layout.token + 1, reading.layout.token + 1)
    return reading


def _source_rows(source: Source, columns: Columns, data: DataFields, labelled: bool, layout: Layout | None) -> SourceRows:
    """Return the rows of one source; None stands for a row that cannot be parsed."""
    required = columns.needed | (columns.labels if labelled else {})
    wanted = WantedColumns(required, columns.optional, data.text, data.label, tagged=columns.tagged, layout=layout)
    return SourceRows(source, wanted, lines=data.lines, every_line=True)


def _described(spec: str) -> str:
    """Return how messages name a set: as the user does, or by the first of many sources and the number of the others."""
    first, *others = spec.split(",")
    return spec if len(spec) <= _LONGEST_SPEC or not others else f"{first.strip()} and {len(others)} more"


def _collected(examples: list[Example], numbers: list[int], spec: str, malformed: int, labelled: bool) -> Examples:
    describe = _described(spec)
    if not examples:
        raise UserError(f"{describe}: no row found" + (f" ({malformed} could not be parsed)" if malformed else ""))
    texts, pairs, tokens, labels, ids, faults = (list(values) for values in zip(*examples, strict=True))
    if labelled and all(label is None for label in labels):
        mismatches = faults.count("mismatch")
        raise UserError(f"{describe}: none of its {len(examples):,} rows has a label"
                        + (f": {mismatches:,} have tags that do not match their tokens" if mismatches else ""))

    def present(values: list) -> list | None:
        return None if values[0] is None else values

    return Examples(describe, np.array(numbers, np.int64), texts, present(pairs), present(tokens), labels, present(ids), faults, malformed)
