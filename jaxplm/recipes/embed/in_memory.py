"""Compute vectors of texts that are in memory, for `jaxplm.embed`."""

from collections.abc import Iterable

import numpy as np

from jaxplm.config import Compute, Embed, Mesh, Precision, check_value
from jaxplm.data.labelled.row_length import row_length
from jaxplm.data.labelled.text_blocks import text_blocks
from jaxplm.data.labelled.unit_rows import plan_units
from jaxplm.data.sources.texts import clean
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.errors import UserError
from jaxplm.recipes.embed.checks import check_layers
from jaxplm.recipes.embed.encoder import TextEncoder
from jaxplm.recipes.embed.model import load_embedding_model

# Where the caller gives no length: most checkpoints were trained with texts of this length at most, and longer rows
# cost more.
_LONGEST = 512
_PREFIX = "jaxplm.embed: "  # of messages: the caller gives arguments, not fields of a config


def embed(texts: Iterable[str], path: str, settings: Embed, *, seq_len: int | None, batch_size: int,
          compute: Precision) -> np.ndarray:
    """Return the vectors of n texts, [n, D]; see `jaxplm.embed`."""
    if isinstance(texts, str | bytes):
        raise UserError("jaxplm.embed: texts is a single text; give a list of them: [text]")
    given = list(texts)
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise UserError(f"jaxplm.embed: texts[{i}] is a {type(text).__name__}, not a str")
    _check(settings, seq_len, batch_size, compute)
    if settings.pooling == "none":
        raise UserError(
            "jaxplm.embed: pooling='none' gives no array of one row per text; configs/embed.py writes the vectors of tokens"
        )
    model = load_embedding_model(path, settings, _PREFIX)
    if seq_len is not None:
        model.config.check_length(seq_len, "jaxplm.embed: seq_len", path)
    if not given:
        return np.zeros((0, model.config.width), settings.dtype)
    blocks = list(
        text_blocks(
            (clean(text)[0] for text in given), model.tokenizer, seq_len or min(model.config.max_positions, _LONGEST)
        )
    )
    lengths = np.concatenate([block.encoded.lengths for block in blocks])
    length = row_length(lengths, int(lengths.max()), model.config.width)
    mesh = sharding.make_mesh(Mesh())
    shards = sharding.row_shards(mesh)
    most_rows = max(plan_units(block.encoded.lengths, length).rows for block in blocks)
    rows = -(-min(batch_size, most_rows) // shards) * shards
    encoder = TextEncoder(model, settings, mesh, resolve_compute(Compute(compute), mesh), rows=rows, length=length)
    return np.concatenate([encoder(encoder.batches(block.encoded)) for block in blocks])


def _check(settings: Embed, seq_len: int | None, batch_size: int, compute: str) -> None:
    """Raise a `UserError` that names the argument of `jaxplm.embed` whose value is impossible."""
    arguments = {f"embed.{name}": value for name, value in vars(settings).items() if name != "shard_rows"}
    arguments |= {"train.batch_size": batch_size, "compute.dtype": compute} | (
        {} if seq_len is None else {"data.seq_len": seq_len}
    )
    for field, value in arguments.items():
        argument = "compute" if field == "compute.dtype" else field.rpartition(".")[2]
        check_value(field, value, _PREFIX + argument)
    check_layers(settings, _PREFIX)
