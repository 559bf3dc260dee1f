"""The fields of config.json that are read: type and range of each. A file is checked against this table first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxplm.errors import UserError

_SHOWN = 60  # characters of a value in a message
_EXACT = 2**53  # integers beyond are not numbers that another program reads alike


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int
    null: bool = False

    def __str__(self) -> str:
        return f"a whole number from {self.least:,} to {self.most:,}"

    def takes(self, value: Any) -> bool:
        return type(value) is int and self.least <= value <= self.most


@dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`; `open_end` excludes `most`."""

    least: float
    most: float
    open_end: bool = False
    null: bool = False

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {'below ' * self.open_end}{self.most:g}"

    def takes(self, value: Any) -> bool:
        if type(value) not in (int, float) or not abs(value) <= _EXACT or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and not (self.open_end and value == self.most)


@dataclass(frozen=True)
class Kind:
    """A value of one of JSON's types."""

    name: str
    of: type
    null: bool = False

    def __str__(self) -> str:
        return self.name

    def takes(self, value: Any) -> bool:
        return isinstance(value, self.of)


_PROBABILITY = Number(0, 1, open_end=True)
MOST_TOKENS = 2**24
MOST_OUTPUTS = 100_000  # classes of a head; transformers names each of them, several times per read
# Bounds of sizes are far above those of any model. They keep a wrong number from taking memory or time before it is
# compared with the weights.
FIELDS: Mapping[str, Whole | Number | Kind] = {
    "model_type": Kind("a string", str, null=True),  # a missing one is reported with the names that are known
    "base_model_type": Kind("a string", str, null=True),
    "vocab_size": Whole(1, MOST_TOKENS),
    "hidden_size": Whole(1, 2**16),
    "num_hidden_layers": Whole(1, 2**10),
    "num_attention_heads": Whole(1, 2**12),
    "intermediate_size": Whole(1, 2**20),
    "max_position_embeddings": Whole(1, 2**20),
    "type_vocab_size": Whole(0, 2**16),
    "pad_token_id": Whole(0, MOST_TOKENS, null=True),
    "layer_norm_eps": Number(0, 1),
    "initializer_range": Number(0, 100),
    "hidden_dropout_prob": _PROBABILITY,
    "attention_probs_dropout_prob": _PROBABILITY,
    "classifier_dropout": Number(0, 1, open_end=True, null=True),
    "tie_word_embeddings": Kind("true or false", bool),
    "num_labels": Whole(1, MOST_OUTPUTS),
    "id2label": Kind("an object that names classes 0, 1, ...", dict, null=True),
    "architectures": Kind("a list of names", list, null=True),
    "problem_type": Kind("a string", str, null=True),
}
_OF_A_HEAD = ("classifier_dropout", "num_labels", "id2label", "problem_type")
# The fields of "extension" in config.json of an encoder with exBERT's extension.
EXTENSION_FIELDS: Mapping[str, Whole | Number] = {
    "tokens": Whole(1, MOST_TOKENS), "width": Whole(1, 2**16), "heads": Whole(1, 2**12), "ffn_width": Whole(1, 2**20),
    "gate_bias": Number(-1000, 1000),
}
# Fields without a default. They do not follow from the shapes of the weights.
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings")


def takes(field: Whole | Number | Kind, value: Any) -> bool:
    """Return whether a field may have a value."""
    return field.takes(value) or (value is None and field.null)


def check_fields(hf_config: Mapping[str, Any], source: str) -> None:
    """Raise UserError with every field of a config.json that is missing or has a value that it cannot have."""
    wrong = {name: f"no {name}" for name in REQUIRED if name not in hf_config}
    for name, field in FIELDS.items():
        if name in hf_config and not takes(field, hf_config[name]):
            wrong[name] = f"{name} is {shown(hf_config[name])} and must be {field}"
    if wrong:
        what = "head" if set(wrong) <= set(_OF_A_HEAD) else "model"
        raise UserError(f"{source}: config.json does not describe a {what}: {'; '.join(wrong.values())}")


def shown(value: Any) -> str:
    """Return a value as it stands in a message: short, and null, true and false as JSON has them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) > 10**_SHOWN:
        return f"a number of more than {_SHOWN} digits"
    if isinstance(value, (dict, list)) and len(value) > _SHOWN:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} entries"
    try:
        text = repr(value[: 2 * _SHOWN] if isinstance(value, str) else value)
    except RecursionError:  # nested too deeply to be printed, though not to be read
        return "nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
