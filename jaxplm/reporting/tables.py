"""Tables of text: scores before and after, classes, seeds; and sentences with the result."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxplm.errors import visible
from jaxplm.scores.classification import ClassScore
from jaxplm.scores.names import SHARES, words
from jaxplm.scores.seeds import format_mean_std, format_score
from jaxplm.scores.sums import NOT_SCORES

SPLITS = {"validation": "validation", "test": "test", "general": "general text"}
_RELATIVE = ("loss", "perplexity")

Table = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of one split, before the first step and as exported; `before` is None where it was not measured."""

    split: str
    name: str
    before: float | None
    after: float


def scores(rows: Sequence[Mapping[str, Any]], exported_step: int) -> list[Score]:
    """Return the scores before the first step and as exported.

    Args:
      rows: as in metrics.jsonl.
      exported_step: a split that was not measured at this step is given as last measured before it, else as first
        measured after it.

    Returns:
      One score for each split (validation, test, general) and number, in that order.
    """
    found = []
    for split in SPLITS:
        measured = sorted((row for row in rows if row["split"] == split), key=lambda row: row["step"])
        if not measured:
            continue
        upto = [row for row in measured if row["step"] <= exported_step]
        after = upto[-1] if upto else measured[0]
        before = measured[0] if measured[0]["step"] == 0 and after["step"] > 0 else {}
        for name, value in after.items():
            if name not in NOT_SCORES and isinstance(value, int | float):
                found.append(Score(split, name, before.get(name), value))
    return found


def score_table(found: Sequence[Score]) -> list[tuple[str, str, str, str]]:
    """Return rows of text, the first one a heading: score, before, after, change."""
    table = [("", "before", "after", "change")]
    for score in found:
        label = f"{SPLITS[score.split]} {score.name.replace('_', ' ')}"
        before = "" if score.before is None else value_text(score.name, score.before)
        table.append((label, before, value_text(score.name, score.after), change_text(score)))
    return table


def class_table(rows: Sequence[ClassScore], what: str) -> list[tuple[str, ...]]:
    """Return rows of text: each class or type with precision, recall and F1 in percent, and how often it occurs; – where undefined.

    Args:
      rows: the classes.
      what: heading of the names, "class" or "entity".
    """
    def percent(share: float) -> str:
        return "–" if math.isnan(share) else f"{100 * share:.1f}"

    table = [(what, "precision, %", "recall, %", "F1, %", "support")]
    table += [(row.name or "(no type)", percent(row.precision), percent(row.recall), percent(row.f1), f"{row.support:,}") for row in rows]
    return table


def seed_table(runs: Mapping[int, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Return rows of text: a heading, one row per seed, and the mean ± standard deviation; shares in percent.

    Args:
      runs: {seed: {score: value}}. A score is a name of `jaxplm.scores.names`, with words before it as wanted:
        'macro_f1', 'test macro_f1'.

    Raises:
      ValueError: seeds with different scores.
    """
    columns = list(next(iter(runs.values()), {}))
    for seed, run in runs.items():
        if list(run) != columns:
            raise ValueError(f"seed {seed} has the scores {', '.join(run)}, the first one {', '.join(columns)}")
    names = [column.split(" ")[-1] for column in columns]
    heading = [_spoken(column) + (", %" if name in SHARES else "") for column, name in zip(columns, names, strict=True)]
    rows = [(str(seed), *map(format_score, names, run.values())) for seed, run in runs.items()]
    means = [format_mean_std(name, [run[column] for run in runs.values()]) for name, column in zip(names, columns, strict=True)]
    return [("seed", *heading), *rows, ("mean ± std", *means)]


def summary(found: Sequence[Score], metric: str = "") -> str:
    """Return one sentence with the most important result; "" where it was not measured.

    Args:
      found: of `scores`.
      metric: the score to give, on the validation and the test set. Empty: perplexity and accuracy of masked language modelling,
        and the perplexity on general text where it was measured.
    """
    if metric:
        parts = [_gain(score) for score in found if score.name == metric and score.split in ("validation", "test")]
    else:
        wanted = (("validation", "perplexity"), ("validation", "accuracy"), ("general", "perplexity"))
        parts = [_gain(score) for pair in wanted for score in found
                 if (score.split, score.name) == pair and score.before is not None]
    return _sentence(parts)


def seeds_headline(runs: Mapping[int, Mapping[str, float]], metric: str) -> str:
    """Return one sentence with the mean ± standard deviation of `metric` on each split; `runs` as in `seed_table`."""
    columns = [column for column in next(iter(runs.values())) if column.split(" ")[-1] == metric]
    unit = " %" if metric in SHARES else ""
    parts = [f"{_spoken(column)} **{format_mean_std(metric, [run[column] for run in runs.values()])}{unit}**" for column in columns]
    if parts:
        parts[-1] += f" over {len(runs)} seeds"
    return _sentence(parts)


def _sentence(parts: Sequence[str]) -> str:
    joined = ", ".join(parts)
    return joined[:1].upper() + joined[1:] + "." if joined else ""


def markdown(rows: Table, align: str) -> str:
    """Return a table in Markdown; `align` has one letter per column, l or r. A cell is one line of plain text."""
    lines = ["| " + " | ".join(map(one_line, row)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join({"l": " --- ", "r": " ---: "}[side] for side in align) + "|")
    return "\n".join(lines)


# Markdown's own characters, those of HTML in it, and the bar between cells. A `_` inside a word means nothing.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|$~]|(?<![^\W_])_|_(?![^\W_])")
_OF_HTML = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def one_line(text: str) -> str:
    """Return plain text as Markdown of one line that shows it as it is: for a cell, a heading or a sentence."""
    line = visible(" ".join(str(text).split()))
    return _SPECIAL.sub(lambda found: _OF_HTML.get(found[0], f"\\{found[0]}"), line)


def code(text: str) -> str:
    """Return a text as Markdown code inside a line."""
    line = visible(" ".join(text.split()))
    marks = _marks_around(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{marks}{pad}{line}{pad}{marks}"


def code_block(text: str, language: str = "") -> str:
    """Return a text as a block of Markdown code."""
    marks = _marks_around(text, 3)
    return f"{marks}{language}\n{visible(text)}\n{marks}"


def _marks_around(text: str, least: int) -> str:
    """Return more backticks than the text has in a row."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def value_text(name: str, value: float) -> str:
    if name == "loss":
        return f"{value:.4f}"
    if name == "perplexity":
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{100 * value:.2f} %" if name in SHARES else f"{value:,.4g}"


def change_text(score: Score) -> str:
    """Return the change: relative for loss and perplexity, in percentage points for shares, else the difference."""
    if score.before is None:
        return ""
    if score.name in _RELATIVE:
        return f"{100 * (score.after / score.before - 1):+.1f} %" if score.before else ""
    difference = score.after - score.before
    return f"{100 * difference:+.2f} points" if score.name in SHARES else f"{difference:+,.4g}"


def _gain(score: Score) -> str:
    after = f"**{value_text(score.name, score.after)}**"
    label = f"{SPLITS[score.split]} {words(score.name)}"
    if score.before is None:
        return f"{label} {after}"
    return f"{label} {value_text(score.name, score.before)} → {after} ({change_text(score)})"


def _spoken(column: str) -> str:
    return " ".join(words(word) for word in column.split(" "))
