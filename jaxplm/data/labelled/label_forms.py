"""How the labels of a task are written, as the training set shows it, and the labels of every set in that form.

Data sets write one label in several ways: a name composed of other characters (NFC, NFD), `1.0` for `1` after a column
with gaps has been through pandas, `True` for `true`, the number of a class for its name, or a list of zeros and ones, one
per class. Sets that differ in this would seem to have different labels.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_values import Flags
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

_INTEGER = re.compile(r"([+-]?)0*([0-9]+?)(?:\.0*)?")
_PLAIN_INTEGER = re.compile(r"([+-]?)([0-9]+)(?:\.0*)?")
_SHOWN = 8  # names that a message lists
_SHOWN_CHARS = 60  # of a name
# What data sets write for a label that is not given.
_NOT_GIVEN = "-1"


def meaning(name: str) -> str:
    """Return what a label means whatever its spelling: composed characters, numbers without fraction, `true`, `false`."""
    name = unicodedata.normalize("NFC", name)
    if number := _PLAIN_INTEGER.fullmatch(name):
        digits = number[2]
        return digits if number[1] != "-" or not digits.strip("0") else f"-{digits}"
    return name.lower() if name.lower() in ("true", "false") else name


def likeness(name: str) -> str:
    """Return what two labels have in common that a reader may take for one: case, spaces, width, invisible characters."""
    name = "".join(char for char in unicodedata.normalize("NFKC", name) if unicodedata.category(char) not in ("Cf", "Cc"))
    if number := _INTEGER.fullmatch(name):
        return number[1].replace("+", "") + number[2]
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def shown(name: str, beside: str | None = None) -> str:
    """Return a label for a message; characters that do not print, or that alone tell it from `beside`, by their numbers."""
    unseen = {char for char in name if not char.isprintable()}
    if beside is not None and unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", beside):
        unseen |= {char for char in name if char not in beside}
    if not unseen:
        return repr(name[:_SHOWN_CHARS])
    numbers = ", ".join(f"U+{ord(char):04X}" for char in sorted(unseen)[:4])
    return f"{name[:_SHOWN_CHARS]!r} (with {numbers})"


def listed(names: Iterable[str], known: Iterable[str] = ()) -> str:
    """Return labels for a message, each beside the one of `known` that looks like it."""
    names = list(names)
    alike = {likeness(name): name for name in known}
    parts = []
    for name in names[:_SHOWN]:
        near = alike.get(likeness(name))
        if near is None or near == name:
            plain = name.isprintable() and len(name) <= _SHOWN_CHARS
            parts.append(name if plain else shown(name))
        else:
            parts.append(f"{shown(name, near)}, which is not {shown(near, name)}")
    return ", ".join(parts) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


@dataclass(frozen=True)
class LabelForms:
    """How labels are written.

    Attributes:
      spellings: {meaning: the name that stands for it}.
      numbered: the names that the numbers of classes stand for; () where numbers are names like others.
      columns: how many zeros and ones a list has, one per class; 0: a list holds names; None: each set shows it.
    """

    spellings: dict[str, str]
    numbered: tuple[str, ...] = ()
    columns: int | None = 0

    @classmethod
    def of_training(cls, train: Examples, label_names: tuple[str, ...] = ()) -> "LabelForms":
        """Return the forms of a training set; one line says what was found.

        Args:
          train: rows that can be trained on.
          label_names: `data.label_names`.

        Raises:
          UserError: `label_names` does not fit the labels.
        """
        columns = _columns(train)
        if not columns and len(label_names) == 1 and _flag_lengths(train) == {1}:
            columns = 1
        if columns and label_names and len(label_names) != columns:
            raise UserError(f"data.label_names gives {len(label_names)} names, but the labels of {train.describe} are lists of"
                            f" {columns} zeros and ones, one per class")
        if columns:
            log.info("%s: labels are lists of %d zeros and ones, one per class; the classes are %s", train.describe, columns,
                     f"named {listed(label_names)}" if label_names else "their numbers (data.label_names names them)")
        numbered = label_names or tuple(map(str, range(columns)))
        forms = cls({meaning(name): name for name in numbered}, numbered, columns)
        counts = Counter(name for label in train.labels for name in _names(forms.plain(label)))
        if label_names and not columns and (others := sorted(counts.keys() - set(numbered))):
            raise UserError(f"data.label_names={','.join(numbered)!r}: {train.describe} has other labels: {listed(others, numbered)}")
        return forms if numbered else cls(_common_spellings(counts, train.describe))

    @classmethod
    def of_model(cls, names: tuple[str, ...], label_names: tuple[str, ...] = ()) -> "LabelForms":
        """Return the forms of the labels of a model.

        Args:
          names: the model's labels in their order.
          label_names: `data.label_names`: what numbers in the data stand for.

        Raises:
          UserError: a name in `label_names` is not one of the model's.
        """
        if label_names and (others := [name for name in label_names if name not in names]):
            raise UserError(f"data.label_names: the model has no label {listed(others, names)}; it has {listed(names)}")
        return cls({meaning(name): name for name in names}, label_names, None)

    def apply(self, examples: Examples) -> Examples:
        """Return the same examples with their labels in these forms.

        A label of -1 that is no name of the training set is taken as not given: so test sets say that they have none.

        Raises:
          UserError: a list is not one of zeros and ones, or of another length than in training.
        """
        if self.columns is None:
            columns = _columns(examples)
            classes = self.numbered or tuple(self.spellings.values())
            forms = replace(self, columns=columns, numbered=classes) if columns == len(classes) else replace(self, columns=0)
            return forms.apply(examples)
        labels = [self._in_form(label, examples, row) for row, label in enumerate(examples.labels)]
        hidden = [before is not None and after is None for before, after in zip(examples.labels, labels, strict=True)]
        if any(hidden):
            log.info("%s: the label -1 of %s rows is taken as not given", examples.describe, f"{sum(hidden):,}")
        faults = [fault or ("missing" if was else "") for fault, was in zip(examples.faults, hidden, strict=True)]
        return replace(examples, labels=labels, faults=faults, classes=self.numbered)

    def plain(self, label: Any) -> Any:
        """Return a label with the names of classes for their numbers and columns."""
        if isinstance(label, Flags):
            if self.columns and len(label) == self.columns:
                return tuple(name for name, on in zip(self.numbered, label.values, strict=True) if on)
            label = tuple(dict.fromkeys(label))
        if self.numbered and not self.columns:
            return _each(label, self._of_number)
        return label

    def _in_form(self, label: Any, examples: Examples, row: int) -> Any:
        if self.columns and label and not self._is_row(label):
            raise UserError(f"{examples.describe} row {examples.rows[row] + 1}: its label ({listed(label)}) is not a list of"
                            f" {self.columns} zeros and ones, one per class, as other labels are")
        label = self.plain(label)
        given = label if type(label) is tuple else (label,)
        if len(given) == 1 and isinstance(given[0], str) and meaning(given[0]) == _NOT_GIVEN and _NOT_GIVEN not in self.spellings:
            return None
        return _each(label, self._spelled)

    def _is_row(self, label: Any) -> bool:
        """Return whether a label has a value per class, or names of classes where those are no numbers."""
        if isinstance(label, Flags):
            return len(label) == self.columns
        return all((name in self.numbered and not name.isdigit()) or meaning(name) == _NOT_GIVEN for name in label)

    def _spelled(self, name: str) -> str:
        return self.spellings.get(meaning(name), name)

    def _of_number(self, name: str) -> str:
        number = meaning(name)
        if number.isascii() and number.isdigit() and len(number) < 9 and name not in self.numbered and int(number) < len(self.numbered):
            return self.numbered[int(number)]
        return name


def without_mark(numbers: Examples, train: Examples | None = None) -> Examples:
    """Return a set of numbers without its labels where each of them is -1: so test sets say that they have none.

    Args:
      numbers: the set.
      train: the training set; where it has no other number either, -1 is a number like others. None: it is not known.
    """
    given = {label for label in numbers.labels if isinstance(label, float)}
    if given != {-1.0} or len(numbers) < 2:
        return numbers
    if train is not None and all(label == -1 for label in train.labels):
        return numbers
    log.info("%s: the label -1 of all rows is taken as not given", numbers.describe)
    return replace(numbers, labels=[None] * len(numbers), faults=[fault or "missing" for fault in numbers.faults])


def _each(label: Any, change: Any) -> Any:
    """Return a label with a function applied to its name, or to each of its names; labels without names as they are."""
    if isinstance(label, str):
        return change(label)
    if type(label) not in (tuple, list) or not all(isinstance(name, str) for name in label):
        return label
    return list(map(change, label)) if type(label) is list else tuple(dict.fromkeys(map(change, label)))


def _names(label: Any) -> tuple[str, ...]:
    if isinstance(label, str):
        return (label,)
    return tuple(name for name in label if isinstance(name, str)) if type(label) in (tuple, list) else ()


def _flag_lengths(examples: Examples) -> set[int]:
    """Return the lengths of the lists of zeros and ones; {0} where some label is not one."""
    given = [label for label in examples.labels if label is not None]
    return {len(label) for label in given} if given and all(isinstance(label, Flags) for label in given) else {0}


def _columns(examples: Examples) -> int:
    """Return how many classes have a value each in the labels; 0 where the lists hold names.

    A list of numbers of classes has no number twice. Where no list has, those of classes would differ in length: where
    all are as long, every row would have both labels.
    """
    repeating = [len(label) for label in examples.labels if isinstance(label, Flags) and len(set(label)) < len(label)]
    if repeating:
        return max(repeating)
    lengths = _flag_lengths(examples)
    return max(lengths) if len(lengths) == 1 and max(lengths) > 1 else 0


def _common_spellings(counts: Counter[str], describe: str) -> dict[str, str]:
    """Return the most frequent spelling of each meaning; one line says which were taken as one, or look alike."""
    spellings: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], len(name), name)):
        spellings.setdefault(meaning(name), []).append(name)
    merged = [names for names in spellings.values() if len(names) > 1]
    if merged:
        log.info("%s: spellings of one label are taken together: %s", describe, "; ".join(
            f"{shown(names[0], names[1])} for {', '.join(shown(name, names[0]) for name in names[1:4])}" for names in merged[:4]))
    alike: dict[str, list[str]] = {}
    for names in spellings.values():
        alike.setdefault(likeness(names[0]), []).append(names[0])
    if near := [names for names in alike.values() if len(names) > 1 and likeness(names[0])]:
        log.warning("%s: labels that look alike are classes of their own: %s", describe, "; ".join(
            f"{shown(names[0], names[1])} and {shown(names[1], names[0])}" for names in near[:4]))
    return {key: names[0] for key, names in spellings.items()}
