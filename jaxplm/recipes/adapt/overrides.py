"""Fields that a comparison gives to the stages of one recipe: `adapt.dapt=('train.steps=1000', 'train.batch_size=64')`."""

import ast
from collections.abc import Iterable
from typing import Any

from jaxplm.config import check_field, check_value, field_infos
from jaxplm.errors import UserError


def parsed(overrides: Iterable[str]) -> dict[str, Any]:
    """Return {field: value} of overrides that were checked, later ones in place of earlier ones.

    One of train.steps and train.epochs takes the place of the other.
    """
    found: dict[str, Any] = {}
    for override in overrides:
        name, value = parse(override, override)
        for one, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
            if name == one:
                found.pop(other, None)
        found[name] = value
    return found


def parse(override: str, called: str) -> tuple[str, Any]:
    """Return the field and the value of 'train.steps=1000'.

    Args:
      called: how a message names it: "adapt.dapt".

    Raises:
      UserError: it has no =, there is no such field, or the field does not take the value.
    """
    name, equals, text = override.partition("=")
    name, text = name.strip(), text.strip()
    if not equals:
        raise UserError(f"{called}: {override!r} is not of the form 'train.steps=1000'")
    try:
        check_field(name)
    except UserError as error:
        raise UserError(f"{called}: {error}") from None
    kind = field_infos()[name].value_type
    value: Any = text
    if kind is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif kind is not str or text == "None":
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = text
    try:
        check_value(name, value, f"{called}: {name}")
    except UserError as error:
        raise UserError(str(error)) from None
    return name, value
