"""What `--help` prints: of the command, the recipes; of a recipe, the fields that it reads. Lines have 80 columns."""

import ast
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxplm.config import Config, FieldInfo, field_infos, flatten, section_abouts

WIDTH = 80
_LEFT = 20  # columns of names in a table

# What most runs set, for the page of the command.
_COMMON = ("model.path", "data.train", "data.validation", "data.seq_len", "train.batch_size", "train.learning_rate", "train.steps",
           "train.epochs", "seed")


def command_page(recipes: Mapping[str, Iterable[Path]]) -> str:
    """Return the help of the command.

    Args:
      recipes: {what a group of recipes is about: the config files of its recipes}.
    """
    parts = [
        "jaxplm adapts pre-trained BERT and RoBERTa encoders to a domain and a task.",
        "usage: jaxplm --config=RECIPE [--workdir=DIR] [--config.FIELD=VALUE ...]",
        _filled("RECIPE is a name below, or the path of a config file. The run is kept in DIR, by default runs/RECIPE; the same command"
                " in the same DIR resumes it. With no field at all, every recipe runs on a small model and data that the package"
                " brings."),
    ]
    for about, files in recipes.items():
        parts.append("\n".join([_filled(about.strip().rstrip(".") + ":"), *(_row(file.stem, first_sentence(file)) for file in files)]))
    infos = field_infos()
    parts.append("\n".join(["Fields that most runs set:", *(_row(name, _sentence(infos[name].about)) for name in _COMMON)]))
    parts.append(_filled("jaxplm --config=RECIPE --help lists all fields of a recipe, with their values there."))
    return "\n\n".join(parts)


def recipe_page(file: Path, config: Config, fields: Iterable[FieldInfo]) -> str:
    """Return the help of a recipe.

    Args:
      file: its config file; the docstring comes first.
      config: what the file returns; its values are shown.
      fields: those that the recipe reads, in the order in which they are shown.
    """
    values, abouts = dict(flatten(config)), section_abouts()
    parts = [ast.get_docstring(ast.parse(file.read_text("utf-8"))) or file.stem,
             _filled("Fields and their values in this recipe; --config.<field>=<value> sets another value.")]
    sections: dict[str, list[str]] = {}
    for info in fields:
        sections.setdefault(info.name.rpartition(".")[0], []).append(_entry(info, values[info.name]))
    for section, entries in sections.items():
        heading = [f"{section}: {abouts[section][0].lower()}{abouts[section][1:]}"] if section else []
        parts.append("\n".join([*heading, *entries]))
    return "\n\n".join(parts)


def first_sentence(file: Path) -> str:
    """Return the first line of a config file's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or file.stem).split("\n")[0]


def typed(value: Any) -> str:
    """Return a value as it is typed on the command line; None as None."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and any(isinstance(one, str) for one in value):
        return f'"{value}"'  # it has single quotes
    return f"'{value}'" if value == "" or isinstance(value, tuple) or " " in str(value) else str(value)


def _entry(info: FieldInfo, value: Any) -> str:
    possible = "" if info.possible == "text" else f" [{info.possible}]"
    first = textwrap.fill(f"{info.name} = {typed(value)}", WIDTH, initial_indent="  ", subsequent_indent=" " * 8, break_long_words=False,
                          break_on_hyphens=False)
    return f"{first}\n" + _filled(_sentence(info.about) + possible, " " * 6)


def _row(name: str, about: str) -> str:
    return textwrap.fill(about, WIDTH, initial_indent=f"  {name:{_LEFT}}", subsequent_indent=" " * (_LEFT + 2), break_on_hyphens=False)


def _sentence(about: str) -> str:
    first = about.split(" ")[0].strip(",:;")
    return (about if first in field_infos() or "." in first else about[0].upper() + about[1:]) + "."


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
