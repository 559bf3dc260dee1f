"""More rows for a model's vocabulary: word table, tied decoder and decoder bias in step, optimizer state too.

The decoder is the word table (`nn.heads.MLMHead`), so its weight grows with it; its bias is a parameter of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxplm.config import check_value
from jaxplm.errors import UserError
from jaxplm.nn import EncoderConfig, ParamTree
from jaxplm.nn.paths import path_name

WORD, BIAS = "encoder/embeddings/word", "mlm_head/bias"
MEAN_NOISE = 0.01  # of `mean`, in standard deviations of each column: enough to tell the new rows apart


def resize_embeddings(params: ParamTree, config: EncoderConfig, new_size: int, pieces: Sequence[Sequence[int]], *,
                      init: str = "subword_mean", seed: int = 0) -> tuple[ParamTree, EncoderConfig]:
    """Parameters with rows for n new tokens, which have the last n ids below `new_size`.

    Rows of old tokens stay bitwise; where the table had spare rows without a token, new tokens take these first. Pad rows
    are zero. How a new row e [D] and its decoder bias b start:

      subword_mean: the mean of its old pieces' rows and biases (FVT, Gee et al. 2022; AVocaDo, Hong et al. 2021). The
        decoder is tied, so the new logit is the mean of the pieces' logits in every context.
      mean: the mean of all old rows and biases, the row with noise of 0.01 standard deviations of each column, as far as
        transformers' `mean_resizing` goes (Hewitt 2021). A new token then has about the average old logit.
      normal: N(0, init_std²), bias 0, as a model starts from nothing.

    Args:
      params: of a `MaskedLM`, `encoder/embeddings/word [Vp, D]` and `mlm_head/bias [Vp]` among them; not changed.
      config: with the old `vocab_size` V.
      new_size: ids of the new tokenizer, i.e. its largest + 1; V stays if it is larger.
      pieces: [n] the old ids that stood for each new token, in the order of the new ids (`Appended.pieces`).
      init: as `vocab.init`: subword_mean, mean or normal.
      seed: of the random numbers of `mean` and `normal`.

    Returns:
      The parameters, the two resized leaves as NumPy arrays and the others as they were, and the config with the new V.

    Raises:
      UserError: an unknown `init`; a model with an exBERT extension.
      ValueError: ids that do not follow upon the model's.
    """
    if config.extension:
        raise UserError("the model has an exBERT extension, whose tokens come after the base's: no tokens can be put between them")
    first = new_size - len(pieces)
    if not 0 < first <= config.vocab_size:
        raise ValueError(f"the new tokens begin at id {first}, but the model has rows for {config.vocab_size}")
    if any(not 0 <= piece < first for parts in pieces for piece in parts) or not all(pieces):
        raise ValueError(f"every new token needs old pieces, of ids below {first}")
    config = replace(config, vocab_size=max(new_size, config.vocab_size))
    word = np.asarray(params["encoder"]["embeddings"]["word"])
    bias = np.asarray(params["mlm_head"]["bias"])
    rows, biases = _start(word[:first], bias[:first], pieces, init, config.init_std, seed)
    encoder = {**params["encoder"], "embeddings": {**params["encoder"]["embeddings"], "word": _placed(word, rows, first, config)}}
    head = {**params["mlm_head"], "bias": _placed(bias, biases, first, config)}
    return {**params, "encoder": encoder, "mlm_head": head}, config


def resize_optimizer_state(opt_state: Any, old_params: ParamTree, new_params: ParamTree, first: int) -> Any:
    """An optax state for resized parameters, of a run that goes on with more tokens.

    Moments of old rows stay bitwise, those of the new rows are zero. Adam's count is one for all rows, so that the moments of
    new rows are hardly corrected for their start: their first update is (1 - β1) / √(1 - β2) of the learning rate (0.7 at
    β 0.9/0.98, 3.2 at 0.9/0.999).

    Args:
      opt_state: of any chain, `optax.partition` and masks included: leaves are known by the end of their path and their shape.
        Frozen parameters have no moments, and so nothing of theirs changes.
      old_params, new_params: before and after `resize_embeddings`; only shapes are read.
      first: the first new id.

    Returns:
      The state, resized leaves as NumPy arrays.
    """
    shapes = {name: (np.shape(_leaf(old_params, name)), np.shape(_leaf(new_params, name))) for name in (WORD, BIAS)}

    def resized(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        for ending, (before, after) in shapes.items():
            if (name == ending or name.endswith("/" + ending)) and np.shape(leaf) == before:
                moments = np.zeros(after, np.asarray(leaf).dtype)
                moments[:first] = np.asarray(leaf)[:first]
                return moments
        return leaf

    return jax.tree_util.tree_map_with_path(resized, opt_state)


def _leaf(params: ParamTree, name: str) -> Any:
    for part in name.split("/"):
        params = params[part]
    return params


def _placed(old: np.ndarray, new: np.ndarray, first: int, config: EncoderConfig) -> np.ndarray:
    """old [Vp, ...] with `new` [n, ...] from `first` on, in the padded size of `config`."""
    table = np.zeros((config.padded_vocab, *old.shape[1:]), old.dtype)
    size = min(len(old), len(table))
    table[:size] = old[:size]
    table[first : first + len(new)] = new
    return table


def _start(word: np.ndarray, bias: np.ndarray, pieces: Sequence[Sequence[int]], init: str, init_std: float,
           seed: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, D], [n]: new rows and biases out of the old ones, [first, D] and [first]."""
    n, width = len(pieces), word.shape[1]
    random = np.random.default_rng(seed)
    check_value("vocab.init", init)
    if init == "normal":
        return (init_std * random.standard_normal((n, width))).astype(word.dtype), np.zeros(n, bias.dtype)
    if init == "mean":
        noise = MEAN_NOISE * word.std(axis=0, keepdims=True, dtype=np.float64) * random.standard_normal((n, width))
        rows = word.mean(axis=0, keepdims=True, dtype=np.float64) + noise
        return rows.astype(word.dtype), np.full(n, bias.mean(dtype=np.float64), bias.dtype)
    rows = np.stack([word[list(parts)].mean(axis=0, dtype=np.float64) for parts in pieces]) if n else np.zeros((0, width))
    biases = np.array([bias[list(parts)].mean(dtype=np.float64) for parts in pieces], bias.dtype)
    return rows.astype(word.dtype), biases
