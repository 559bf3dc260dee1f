"""Initial parameters of an extension: a narrowed copy of the base, behind gates that are nearly closed."""

import dataclasses

import jax
import numpy as np

from jaxplm.errors import UserError
from jaxplm.nn.config import VOCAB_MULTIPLE, EncoderConfig, ExtensionConfig
from jaxplm.nn.exbert.modules import GATE_SCALE
from jaxplm.nn.model import ParamTree


def extend_params(params: ParamTree, config: EncoderConfig, extension: ExtensionConfig, rows: np.ndarray, bias: np.ndarray,
                  first: int | None = None) -> tuple[ParamTree, EncoderConfig]:
    """Add exBERT's extension (Tai et al. 2020) to a masked language model.

    On text without new tokens, the result computes what the base computes, except for the extension's share of each block's
    output, 1 - σ(`gate_bias`). The extension starts as a `narrowed` copy of the base's blocks instead of noise, which makes the
    deviation smaller and gives training a start.

    Args:
      params, config: of a `MaskedLM`; leaves may be NumPy or JAX arrays and are not changed.
      extension: its sizes, see `extension_config`.
      rows: [Vx, D] float32, the embeddings of the new tokens in the order of their ids.
      bias: [Vx] float32, their biases in the decoder.
      first: the id of the first new token; None means `config.vocab_size`. Rows of the base from there on are removed. They
        belong to no token: some tables are longer than their tokenizer.

    Returns:
      New parameters and config; leaves are NumPy float32 arrays.

    Raises:
      UserError: the model has an extension already, or there are no new tokens.
    """
    if config.extension:
        raise UserError(f"the model has an extension of {config.extension.tokens:,} tokens already; extend the base that it was made from,"
                        " with all new tokens at once")
    if not extension.tokens:
        raise UserError("no new tokens: an extension needs at least one")
    if rows.shape != (extension.tokens, config.width) or bias.shape != (extension.tokens,):
        raise ValueError(f"rows {rows.shape} and bias {bias.shape} for {extension.tokens} tokens of width {config.width}")
    if extension.heads != config.heads or extension.width > config.heads * config.head_width or extension.ffn_width > config.ffn_width:
        raise ValueError(f"{extension} has other heads than the base, or is wider")
    host = jax.tree.map(lambda leaf: np.array(leaf, np.float32), params)
    if first is not None and first != config.vocab_size:
        host, config = _cut(host, config, first)
    gate = {"kernel": np.zeros((config.layers, config.width), np.float32),
            "bias": np.full(config.layers, extension.gate_bias / GATE_SCALE, np.float32)}
    blocks = {**narrowed(host["encoder"]["blocks"], extension), "gate": gate}
    host["encoder"]["extension"] = {"word": _filled(rows), "blocks": blocks}
    host["mlm_extension"] = {"bias": _filled(bias)}
    return host, dataclasses.replace(config, extension=extension)


def narrowed(blocks: ParamTree, extension: ExtensionConfig) -> ParamTree:
    """Return a stack of blocks with the widths of `extension` that computes approximately the same as `blocks`.

    In each head, the products of query and key matrices and of value and output matrices are replaced by the nearest products
    of lower rank (Eckart & Young 1936). Of the feed-forward units, those with the largest weights, |input| · |output|, are kept.
    With the base's own widths the result is exact.

    Args:
      blocks: `encoder/blocks` as NumPy arrays, with as many heads as the extension.
      extension: with the widths.
    """
    attention, mlp = blocks["attention"], blocks["mlp"]
    layers, width, _, heads, old = attention["qkv"]["kernel"].shape
    new = extension.width // extension.heads
    qkv = np.zeros((layers, width + 1, 3, heads, new), np.float32)  # the last row is the bias
    out = np.zeros((layers, heads, new, width), np.float32)
    units = np.zeros((layers, extension.ffn_width), np.int64)
    whole = np.concatenate([attention["qkv"]["kernel"], attention["qkv"]["bias"][:, None]], axis=1)
    for n in range(layers):
        for h in range(heads):
            q, k, v = (whole[n, :, i, h] for i in range(3))
            q, k = _factors(q, k.T, new)
            # Scores are divided by the root of the head's width, which has changed.
            qkv[n, :, 0, h], qkv[n, :, 1, h] = q * (new / old) ** 0.5, k.T
            qkv[n, :, 2, h], out[n, h] = _factors(v, attention["out"]["kernel"][n, h], new)
        weight = np.linalg.norm(mlp["up"]["kernel"][n], axis=0) * np.linalg.norm(mlp["down"]["kernel"][n], axis=1)
        units[n] = np.sort(np.argsort(-weight, kind="stable")[: extension.ffn_width])
    up, down = mlp["up"], mlp["down"]
    return {
        "attention": {"qkv": {"kernel": qkv[:, :-1], "bias": qkv[:, -1]}, "out": {"kernel": out, "bias": attention["out"]["bias"].copy()},
                      "norm": jax.tree.map(np.copy, attention["norm"])},
        "mlp": {"up": {"kernel": np.take_along_axis(up["kernel"], units[:, None], 2), "bias": np.take_along_axis(up["bias"], units, 1)},
                "down": {"kernel": np.take_along_axis(down["kernel"], units[..., None], 1), "bias": down["bias"].copy()},
                "norm": jax.tree.map(np.copy, mlp["norm"])},
    }


def _factors(left: np.ndarray, right: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a [D, r] and b [r, E], equal in size, whose product is nearest to left [D, k] · right [k, E]; float64."""
    q_left, r_left = np.linalg.qr(left.astype(np.float64))
    q_right, r_right = np.linalg.qr(right.T.astype(np.float64))
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    root = np.sqrt(s[:rank])
    return q_left @ (u[:, :rank] * root), (q_right @ (vt[:rank].T * root)).T


def _filled(values: np.ndarray) -> np.ndarray:
    """Pad values [Vx, ...] with zeros at the end: [Vxp, ...] float32."""
    return np.pad(values.astype(np.float32), ((0, -len(values) % VOCAB_MULTIPLE), *((0, 0),) * (values.ndim - 1)))


def _cut(params: ParamTree, config: EncoderConfig, size: int) -> tuple[ParamTree, EncoderConfig]:
    """Return the model with only the first `size` tokens of its vocabulary."""
    if not 0 < size <= config.vocab_size:
        raise ValueError(f"first={size} of a vocabulary of {config.vocab_size}")
    params["encoder"]["embeddings"]["word"] = _filled(params["encoder"]["embeddings"]["word"][:size])
    params["mlm_head"]["bias"] = _filled(params["mlm_head"]["bias"][:size])
    return params, dataclasses.replace(config, vocab_size=size)
