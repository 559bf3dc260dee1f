"""Fields of the recipe that writes embeddings, and the rules between them. Imports no JAX."""

import re

from jaxplm.config import Config, Embed
from jaxplm.errors import UserError
from jaxplm.recipes.unread_fields import refuse

# Recipe → patterns of the fields that it reads.
FIELDS = {"embed": (
    "model.path", "data.train", "data.lines", "data.text", "data.text_pair", "data.seq_len", "data.max_rows", "embed.*",
    "train.batch_size", "export.*", "mesh.*", "compute.dtype", "compute.unroll", "compute.attention", "compute.kernels", "compute.remat",
)}


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together."""
    refuse(
        config,
        "train.seeds",
        "train.metric",
        "train.reinit_layers",
        "model.random",
        "task.kind",
        "data.mask_rate_end",
        "data.short_len",
        "data.weights",
        "data.replay",
        "vocab.mask_new",
        "vocab.new_rows_first",
        "model.pairs",
    )
    check_layers(config.embed)
    if not config.data.train:
        raise UserError(
            "data.train is empty: give the texts to embed: a path, a glob, a directory, hf:<name> or builtin:pydocs"
        )


def check_layers(settings: Embed, prefix: str = "embed.") -> None:
    """Raise a `UserError` where `layers` or `mix` name no layers; messages have `prefix` before their names."""
    if settings.layers not in ("last", "last4", "mean") and not re.fullmatch(r"-?\d{1,4}", settings.layers):
        raise UserError(f"{prefix}layers={settings.layers!r}: must be last, last4, mean or a number"
                        " (0 = embeddings, 1 = first block, -1 = last)")
    if settings.mix and sum(settings.mix) <= 0:
        raise UserError(f"{prefix}mix={settings.mix}: the sum of the weights must be more than 0")
