"""The report's texts in English and Korean: a catalogue of messages, and numbers as the language writes them."""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jaxplm.errors import visible
from jaxplm.reporting.numbers import count
from jaxplm.scores.names import SHARES, title, words
from jaxplm.scores.seeds import format_score

LANGUAGES = ("en", "ko")
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class WayName:
    """A name that is set apart from the sentence."""

    name: str


@dataclass(frozen=True)
class Names:
    """Names of ways, each with the method that it is given with; "" for none."""

    names: tuple[str, ...]
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method by its name in the data, "finetune"."""

    name: str


@dataclass(frozen=True)
class Phrase:
    """A message of the catalogue inside another one."""

    key: str


@dataclass(frozen=True)
class Level:
    """A score."""

    metric: str
    value: float


@dataclass(frozen=True)
class Change:
    """A difference of scores, with its unit or without."""

    metric: str
    value: float
    unit: bool = True


@dataclass(frozen=True)
class Seconds:
    """A wall time."""

    value: float


@dataclass(frozen=True)
class Times:
    """A ratio of two costs."""

    value: float


@dataclass(frozen=True)
class Wording:
    """One language.

    Attributes:
      language: "en" or "ko".
      escape: makes plain text safe where it is written to: HTML or Markdown.
      emphasise: marks an escaped name.
      as_code: marks what stands between backticks in a message.
    """

    language: str
    escape: Callable[[str], str]
    emphasise: Callable[[str], str]
    as_code: Callable[[str], str]

    def text(self, key: str, values: Mapping[str, Any] | None = None) -> str:
        """Return the message of a key with its values. These are escaped; the catalogue has nothing to escape.

        Raises:
          KeyError: the catalogue lacks the message or the message asks for a value that is not given.
        """
        shown = {name: self.shown(value) for name, value in (values or {}).items()}
        message = re.sub("`([^`]+)`", lambda quoted: self.as_code(quoted[1]), catalogue(self.language)[key])
        return message.format_map(shown)

    def has(self, key: str) -> bool:
        """Return whether there is a message of this key."""
        return key in catalogue(self.language)

    def shown(self, value: Any) -> str:
        """Return a value as this language writes it, escaped."""
        match value:
            case WayName(name):
                return self.emphasise(self.escape(visible(name)))
            case Phrase(key):
                return self.text(key)
            case Names():
                return self._names(value)
            case Method(name):
                return self.text(f"method.{name}") if self.has(f"method.{name}") else self.escape(visible(name))
            case _:
                return self.escape(self.plain(value))

    def plain(self, value: Any) -> str:
        """Return a number, cost or text as this language writes it, not escaped."""
        match value:
            case Level(metric, number):
                return level(metric, number) + (catalogue(self.language)["unit.percent"] if metric in SHARES else "")
            case Change(metric, number, unit):
                return change(metric, number) + (
                    catalogue(self.language)["unit.points"] if unit and metric in SHARES else ""
                )
            case Seconds(number):
                return self._time(number)
            case Times(number):
                return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
            case bool() | str():
                return visible(str(value))
            case int():
                return f"{value:,}"
            case float():
                return f"{value:.4g}"
        raise TypeError(f"no wording for a {type(value).__name__}")

    def _names(self, value: Names) -> str:
        methods = value.methods or ("",) * len(value.names)
        parts = [
            self.shown(WayName(name)) + (f" ({self.shown(Method(method))})" if method else "")
            for name, method in zip(value.names, methods, strict=True)
        ]
        return ", ".join(parts)

    def _time(self, seconds: float) -> str:
        texts = catalogue(self.language)
        if seconds < 99.5:
            return texts["time.seconds"].format(seconds=f"{seconds:.1f}" if seconds < 9.95 else f"{seconds:.0f}")
        minutes = round(seconds / 60)
        if minutes < 100:
            return texts["time.minutes"].format(minutes=minutes)
        return texts["time.hours"].format(hours=minutes // 60, minutes=f"{minutes % 60:02}")


def level(metric: str, value: float) -> str:
    """Return a score as a number: '84.2' for a share of 0.842; '–' for NaN."""
    return "–" if math.isnan(value) else format_score(metric, value)


def change(metric: str, value: float) -> str:
    """Return a difference with its sign: '+3.1', '−0.4', '0.0'."""
    if math.isnan(value):
        return "–"
    text = format_score(metric, abs(value))
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else "−") + text


def p_value(p: float) -> str:
    """Return a p-value with two digits: '0.032', '< 0.001'."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def tokens(number: float) -> str:
    """Return a count with a unit: '12.3 M'."""
    return count(number) if number else "–"


def operations(flops: float) -> str:
    """Return floating-point operations with a decimal prefix: '1.23 PFLOP'."""
    if flops <= 0:
        return "–"
    size, prefix = next(((size, prefix) for size, prefix in _PREFIXES if flops >= 0.9995 * size), (1.0, ""))
    value = flops / size
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {prefix}FLOP"


def energy(joules: float) -> str:
    """Return an energy in watt hours: '12.3 Wh', '1.24 kWh'."""
    hours = joules / 3600
    unit = "Wh" if hours < 999.5 else "kWh"
    value = hours if unit == "Wh" else hours / 1000
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def rate(value: float) -> str:
    """Return a learning rate: '2e-5'."""
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def metric_name(metric: str) -> str:
    """Return a score's name for a sentence: 'macro-F1'."""
    return words(metric)


def metric_title(metric: str) -> str:
    """Return a score's name for a heading, with its unit: 'Macro-F1, %'."""
    return title(metric) + (", %" if metric in SHARES else "")


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return {key: message} of a language; keys are the tables' names and their entries: "verdict.take"."""
    read = tomllib.loads(
        files("jaxplm.reporting.comparison").joinpath("catalogue", f"{language}.toml").read_text("utf-8")
    )
    return {f"{table}.{name}": text for table, entries in read.items() for name, text in entries.items()}
