"""The cells of labelled data as the labels of a task: names, sets of names, numbers, answers."""

import logging
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from jaxplm.data.sources.columns import Row
from jaxplm.data.sources.text_stream import remove_unreadable
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

# An answer whose text occurs in the context more than once is looked for so far, in characters, from where it should be.
_NEAR = 64


_TRUE = frozenset(("true", "t", "yes", "y", "1", "1.0", "on"))
_FALSE = frozenset(("false", "f", "no", "n", "0", "0.0", "off"))
_SPACED_BINARY = re.compile(r"[01](\.0*)?(\s+[01](\.0*)?)+")
_NO_VALUE = frozenset(("none", "null", "nan", "na", "n/a"))
_BINARY = frozenset(("true", "false", "1", "1.0", "0", "0.0"))


class Flags(tuple[str, ...]):
    """The names in a list of zeros and ones: numbers of classes, or one value per class; `LabelForms` decides."""

    @property
    def values(self) -> list[bool]:
        """Whether each class applies, where there is one value per class."""
        return [name.lower() in _TRUE for name in self]


class Answers(NamedTuple):
    """The answers to a question about a context; without any, the context has no answer."""

    texts: tuple[str, ...]  # as given: predictions are compared with them
    spans: tuple[tuple[int, int], ...]  # (first character, character after the last) of those found in the context
    moved: int = 0  # how many were found at another place than the data say


def is_empty(value: Any) -> bool:
    """Return whether a cell is empty: None, white space, or NaN, as Parquet and pandas write missing values."""
    return value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and math.isnan(value))


def read_text(value: Any, where: str) -> str:
    """Return a cell as text, without unreadable bytes and lone surrogates, which no tokenizer accepts; '' for an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "jaxplm.mark")
    if isinstance(value, list | dict):
        raise UserError(f"{where}: a {type(value).__name__} where a text should be (set data.text)")
    return remove_unreadable(str(value))[0]


def read_class(value: Any, where: str) -> str | None:
    """Return the name of a class, None for an empty cell; numbers by their digits (1 and 1.0 are '1')."""
    if is_empty(value):
        return None
    if isinstance(value, list | dict):
        raise UserError(f"{where}: a {type(value).__name__} where one label should be; task.kind=multilabel takes lists")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return read_text(value, where).strip() or None


def read_classes(value: Any, where: str) -> tuple[str, ...] | None:
    """Return the different names of a list, or of a string with `|` or else `,` between names; () for no name, None for an empty cell.

    Lists of zeros and ones are `Flags`, with every value. In a string there may be spaces between those.
    """
    if is_empty(value):
        return None
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            raise UserError(f"{where}: the labels {value[:60]!r} are a list written as a text; write them as a|b|c, or in .jsonl as a list")
        value = value.split() if _SPACED_BINARY.fullmatch(value.strip()) else value.split("|" if "|" in value else ",")
    names = [read_class(one, where) for one in (value if isinstance(value, list) else [value])]
    if names and all(name is not None and name.lower() in _BINARY for name in names):
        return Flags(name for name in names if name is not None)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def read_flag(value: Any, where: str, column: str) -> bool | None:
    """Return whether a cell says yes, in any of the spellings of true and false; None for an empty cell.

    Raises:
      UserError: another value.
    """
    if is_empty(value) or (isinstance(value, str) and value.strip().lower() in _NO_VALUE):
        return None
    said = str(value).strip().lower() if isinstance(value, (str, int, float)) else ""
    if said not in _TRUE | _FALSE:
        raise UserError(f"{where}: column {column!r} holds {_shown(value)}, which is neither true nor false")
    return said in _TRUE


def read_number(value: Any, where: str) -> float | None:
    """Return a finite number, None for an empty cell; raise UserError for anything else."""
    if is_empty(value):
        return None
    number = _finite(value)
    if number is None:
        raise UserError(f"{where}: the label {_shown(value)} is not a number"
                        " (data.label names its column; task.kind=regress needs numbers)")
    return number


def read_list(value: Any, where: str, column: str) -> list | None:
    """Return a list, or the words of a string; None for an empty cell."""
    if is_empty(value):
        return None
    if isinstance(value, str):
        if value.lstrip().startswith(("['", '["')) and value.rstrip().endswith("]"):
            raise UserError(f"{where}: column {column!r} holds a list written as a text, {value[:40]!r}; write words with"
                            " spaces between, or a list in .jsonl or .parquet")
        return value.split()
    if not isinstance(value, list):
        raise UserError(f"{where}: column {column!r} holds a {type(value).__name__}, not a list of tokens or tags")
    return value


def read_answers(row: Row, context: str, where: str) -> Answers | None:
    """Return the answers of a row in SQuAD's form: a list of {text, answer_start}, or {text: [...], answer_start: [...]}.

    None where the row has none of `answers` and `is_impossible`.
    """
    impossible = read_flag(row.get("is_impossible"), where, "is_impossible")
    if impossible:
        return Answers((), ())
    given = row.get("answers")
    if is_empty(given):
        return None if impossible is None else Answers((), ())
    pairs = _answer_pairs(given, where)
    spans = [_find(context, text, start) for text, start in pairs]
    moved = sum(span is not None and span[0] != start for span, (_, start) in zip(spans, pairs, strict=True))
    return Answers(tuple(text for text, _ in pairs), tuple(span for span in spans if span is not None), moved)


def _answer_pairs(given: Any, where: str) -> list[tuple[str, int]]:
    """Return (text, first character) of each answer."""
    if isinstance(given, dict):
        texts, starts = given.get("text"), given.get("answer_start")
    elif isinstance(given, list) and all(isinstance(answer, dict) for answer in given):
        texts, starts = [answer.get("text") for answer in given], [answer.get("answer_start") for answer in given]
    else:
        texts = starts = None
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise UserError(f"{where}: answers must be SQuAD's: a list of objects with text and answer_start")
    pairs = []
    for text, start in zip(texts, starts, strict=True):
        number = _finite(start)
        if number is None or text is None:
            lacking = "text" if text is None else "answer_start"
            raise UserError(f"{where}: answers must be SQuAD's: {lacking} is {_shown(text if text is None else start)}")
        pairs.append((read_text(text, where), int(number)))
    return pairs


def _finite(value: Any) -> float | None:
    """Return a value as a finite number, None if it is not one."""
    if not isinstance(value, (str, int, float, Decimal)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # a word; an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    """Return a cell for a message, cut where it is long."""
    return f"a {type(value).__name__}" if isinstance(value, (list, dict, tuple)) else repr(str(value)[:60])


def _find(context: str, text: str, start: int) -> tuple[int, int] | None:
    """Return where an answer is: at its place, else at the nearest place not far from it, else at the only place in the context."""
    if not text.strip():
        return None
    if start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    places, at = [], context.find(text)
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    near = min(places, key=lambda place: abs(place - start), default=None)
    if near is None or (len(places) > 1 and abs(near - start) > _NEAR):
        return None
    return near, near + len(text)


def warn_moved(labels: Iterable[Any], describe: str) -> None:
    """Log how many `Answers` were found at another place than the data say."""
    if moved := sum(label.moved for label in labels if isinstance(label, Answers)):
        log.warning("%s: %d answers are elsewhere in their context than answer_start says, and were found there", describe, moved)
