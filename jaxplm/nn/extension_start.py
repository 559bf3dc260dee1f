"""How an extension starts: a model that computes what its base computes, and has something to open the gates for."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxplm.errors import UserError
from jaxplm.nn.config import VOCAB_MULTIPLE, EncoderConfig, ExtensionConfig, padded
from jaxplm.nn.model import ParamTree, random_params


def extend_params(params: ParamTree, config: EncoderConfig, extension: ExtensionConfig, rows: np.ndarray, bias: np.ndarray,
                  seed: int, first: int | None = None) -> tuple[ParamTree, EncoderConfig]:
    """A masked language model with exBERT's extension (Tai et al. 2020) beside it.

    On text without new tokens it computes what the base computes, to within the gates' 1 - σ(`gate_bias`).

    Args:
      params, config: of a `MaskedLM`; leaves may be NumPy or JAX arrays and are not changed.
      extension: its sizes, see `extension_config`.
      rows: [Vx, D] float32, of the new tokens, in the order of their ids.
      bias: [Vx] float32, of their decoder.
      seed: of what is drawn at random.
      first: the id of the first new token, `config.vocab_size` if None. Rows of the base from there on belong to no
        token (some tables are longer than their tokenizer) and are cut off.

    Returns:
      New parameters and config; leaves are NumPy float32 arrays.

    Raises:
      UserError: the model has an extension already, or there are no new tokens.
    """
    if config.extension:
        raise UserError(f"the model has an extension of {config.extension.tokens:,} tokens already: extend the base that it was made from,"
                        " with all new tokens at once")
    if not extension.tokens:
        raise UserError("no new tokens: an extension needs at least one")
    if rows.shape != (extension.tokens, config.width) or bias.shape != (extension.tokens,):
        raise ValueError(f"rows {rows.shape} and bias {bias.shape} for {extension.tokens} tokens of width {config.width}")
    host = jax.tree.map(lambda leaf: np.array(leaf, np.float32), params)
    if first is not None and first != config.vocab_size:
        host, config = _cut(host, config, first)
    config = dataclasses.replace(config, extension=extension)
    drawn = jax.tree.map(np.array, random_params(config, seed))
    own: dict[str, Any] = {"word": _filled(rows), "blocks": drawn["encoder"]["extension"]["blocks"]}
    for part in ("attention", "mlp"):
        own["blocks"][part]["norm"] = jax.tree.map(np.copy, host["encoder"]["blocks"][part]["norm"])
    host["encoder"]["extension"] = own
    host["mlm_extension"] = {"bias": _filled(bias)}
    return host, config


def _filled(values: np.ndarray) -> np.ndarray:
    """[Vx, ...] → [Vxp, ...] float32, zeros at the end."""
    return np.pad(values.astype(np.float32), ((0, -len(values) % VOCAB_MULTIPLE), *((0, 0),) * (values.ndim - 1)))


def _cut(params: ParamTree, config: EncoderConfig, size: int) -> tuple[ParamTree, EncoderConfig]:
    """The model with the first `size` tokens of its vocabulary alone."""
    if not 0 < size <= config.vocab_size:
        raise ValueError(f"first={size} of a vocabulary of {config.vocab_size}")
    params["encoder"]["embeddings"]["word"] = _filled(params["encoder"]["embeddings"]["word"][:size])
    params["mlm_head"]["bias"] = _filled(params["mlm_head"]["bias"][:size])
    assert len(params["mlm_head"]["bias"]) == padded(size)
    return params, dataclasses.replace(config, vocab_size=size)
