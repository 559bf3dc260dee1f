"""Vectors of texts that are in memory: what `jaxplm.embed` does."""

from collections.abc import Iterable

import numpy as np

from jaxplm.config import Compute, Config, Data, Embed, Model, Precision, Train, validate
from jaxplm.data.labelled.row_length import row_length
from jaxplm.data.labelled.text_blocks import text_blocks
from jaxplm.data.labelled.unit_rows import plan_units
from jaxplm.data.sources.texts import clean
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.errors import UserError
from jaxplm.recipes.embed.encoder import TextEncoder
from jaxplm.recipes.embed.layers import open_source

# Most checkpoints of these families were trained with no longer texts, and the few that have more positions cost more.
_LONGEST = 512


def embed(texts: Iterable[str], path: str, settings: Embed, *, seq_len: int | None, batch_size: int,
          compute: Precision) -> np.ndarray:
    """[n, D]; see `jaxplm.embed`."""
    if isinstance(texts, str | bytes):
        raise UserError("jaxplm.embed: texts is a single text; give a list of them: [text]")
    given = list(texts)
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise UserError(f"jaxplm.embed: texts[{i}] is a {type(text).__name__}, not a str")
    data = Data(train="memory") if seq_len is None else Data(train="memory", seq_len=seq_len)
    config = Config("embed", model=Model(path), data=data, embed=settings, train=Train(batch_size=batch_size), compute=Compute(compute))
    validate(config)
    if settings.pooling == "none":
        raise UserError("jaxplm.embed: pooling='none' gives no array of one row a text; for the vectors of tokens take configs/embed.py")
    source = open_source(path, settings)
    if seq_len is not None:
        source.config.check_length(seq_len, "jaxplm.embed: seq_len", path)
    if not given:
        return np.zeros((0, source.config.width), settings.dtype)
    blocks = list(text_blocks((clean(text)[0] for text in given), source.tokenizer, seq_len or min(source.config.max_positions, _LONGEST)))
    lengths = np.concatenate([block.encoded.lengths for block in blocks])
    length = row_length(lengths, int(lengths.max()), source.config.width)
    mesh = sharding.make_mesh(config.mesh)
    shards = sharding.row_shards(mesh)
    most = max(plan_units(block.encoded.lengths, length).rows for block in blocks)
    rows = -(-min(batch_size, most) // shards) * shards
    encoder = TextEncoder(source, settings, mesh, resolve_compute(config.compute, mesh), rows=rows, length=length)
    return np.concatenate([encoder(encoder.batches(block.encoded)) for block in blocks])
