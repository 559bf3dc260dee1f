"""WantedColumns that a reader of rows must find, and the error for one that is not there."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxplm.data.sources.conll import Layout
from jaxplm.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class WantedColumns:
    """What is wanted of the rows of a source.

    Attributes:
      required: {column: the field of the config that names it, or "" where the name is fixed}. A row may lack one of
        them (ragged JSON), but a column that no row has is an error.
      optional: columns that are read where they exist. Of Parquet files and hub data sets only named columns are read.
      text, label: what the column of texts is called in rows of .txt files and built-in corpora, and that of labels in
        the latter.
      tagged: (tokens, tags), the columns of a tagged sentence. With it, .conll, .tsv and .txt files are read as CoNLL
        with these two columns; without it, only .conll files are, with the columns `text` and `tokens`.
      layout: of CoNLL files, see `conll.find_layout`; None: each file shows it.
    """

    required: Mapping[str, str]
    optional: tuple[str, ...] = ()
    text: str = "text"
    label: str = "label"
    tagged: tuple[str, str] | None = None
    layout: Layout | None = None

    @property
    def named(self) -> frozenset[str]:
        """All columns that are read."""
        return frozenset((*self.required, *self.optional))

    def check_once(self, names: Iterable[str], where: object) -> None:
        """Raise `UserError` if two columns have the name of one that is read: which of them is meant is not known."""
        counts = Counter(names)
        for name in counts:
            if counts[name] > 1 and name in self.named:
                raise UserError(f"{where} has {counts[name]} columns {name!r}; rename or remove all but the one that is meant")

    def present(self, names: list[str], where: object) -> list[str]:
        """Return the columns to read out of those that exist.

        Raises:
          UserError: a required column does not exist, or a column exists twice.
        """
        self.check_once(names, where)
        for column in self.required:
            if column not in names:
                raise missing_column(where, column, names, self.required[column])
        return [
            *self.required,
            *(column for column in self.optional if column in names and column not in self.required),
        ]


def missing_column(where: object, column: str, names: list[str], field: str) -> UserError:
    """Return the error for a column that is not there.

    It names the columns that are, and the field that chooses it, if any.
    """
    shown = ", ".join(repr(name) for name in names[:12]) + (" …" if len(names) > 12 else "")
    return UserError(
        f"{where} has no column {column!r}; it has {shown or 'none'}" + (f" (set {field})" if field else "")
    )


def require_columns(
    rows: Iterator[Row | None], required: Mapping[str, str], where: object, patience: int | None
) -> Iterator[Row | None]:
    """Yield the rows once each required column was seen in one of them; until then they are held back.

    Args:
      rows: None stands for a row that could not be parsed.
      required: {column: field of the config, or ""}.
      where: what the error names.
      patience: rows after which a column that none of them has is taken to be missing, so that a file of many GB is not
        read to the end to say so. None: all rows.

    Raises:
      UserError: no row has one of the columns.
    """
    unseen = set(required)
    names: dict[str, None] = {}
    held: list[Row | None] = []
    for row in rows:
        if not unseen:
            yield row
            continue
        unseen -= (row or {}).keys()
        names.update(dict.fromkeys(row or {}))
        held.append(row)
        if not unseen:
            yield from held
            held = []
        elif len(held) == patience:
            break
    if unseen and any(row is not None for row in held):
        column = next(column for column in required if column in unseen)
        raise missing_column(where, column, list(names), required[column])
    yield from held
