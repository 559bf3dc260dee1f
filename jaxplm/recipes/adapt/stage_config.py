"""The whole config of a stage: the recipe's config file with the stage's fields, checked as the command checks it."""

import copy
import functools
import importlib
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxplm
from jaxplm.config import Config, fields_matching, flatten, validate
from jaxplm.errors import UserError

# Recipes that stages run, and their folders in `jaxplm/recipes`.
FOLDERS = {"dapt": "pretrain", "tapt": "pretrain", "extend_vocab": "pretrain", "exbert": "pretrain", "select": "select",
           "finetune": "finetune", "feature_extraction": "finetune"}


def checks_of(recipe: str) -> ModuleType:
    """Return the module `checks` of a recipe. A comparison knows of the recipes that it runs what the command knows of them."""
    return importlib.import_module(f"jaxplm.recipes.{FOLDERS[recipe]}.checks")


@functools.cache
def fields_read(recipe: str) -> frozenset[str]:
    """Return the names of the fields that a recipe reads."""
    return frozenset(info.name for info in fields_matching(checks_of(recipe).FIELDS[recipe]))


def defaults(recipe: str) -> Config:
    """Return what the recipe's config file has, a new object each time."""
    return copy.deepcopy(_file(recipe))


@functools.cache
def _file(recipe: str) -> Config:
    package = Path(jaxplm.__file__).parent  # type: ignore[arg-type]
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return runpy.run_path(str(folder / f"{recipe}.py"))["get_config"]()


def stage_config(recipe: str, fields: Mapping[str, Any], called: str = "") -> Config:
    """Return the config of an ordinary run of a recipe with these fields.

    Args:
      called: what a message names the stage; empty: no name.

    Raises:
      UserError: a field that the recipe does not read, an impossible value, or values that do not go together.
    """
    config = defaults(recipe)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{one}" in fields and f"train.{other}" not in fields:
            setattr(config.train, other, None)
    for name, value in fields.items():
        section, _, leaf = name.rpartition(".")
        setattr(getattr(config, section) if section else config, leaf, value)
    try:
        if unread := sorted(fields.keys() - fields_read(recipe)):
            raise UserError(f"{unread[0]}: {recipe} does not read it")
        validate(config)
        checks_of(recipe).check(config)
    except UserError as error:
        raise UserError(f"{called}: {error}" if called else str(error)) from None
    return config


def resolved(config: Config) -> dict[str, Any]:
    """Return all fields of a config as JSON has them, by dotted names."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flatten(config)}

