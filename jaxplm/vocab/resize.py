"""Add rows to a model's word table and decoder bias for new tokens.

The decoder is the word table (`nn.heads.MLMHead`), so its weight grows with it. Its bias is a parameter of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxplm.config import check_value
from jaxplm.errors import UserError
from jaxplm.nn import EncoderConfig, ParamTree

WORD, BIAS = "encoder/embeddings/word", "mlm_head/bias"
MEAN_NOISE = 0.01  # noise of `mean`, in standard deviations of each column: enough to make the new rows differ


def resize_embeddings(params: ParamTree, config: EncoderConfig, new_size: int, pieces: Sequence[Sequence[int]], *,
                      init: str = "subword_mean", seed: int = 0) -> tuple[ParamTree, EncoderConfig]:
    """Return parameters with rows for n new tokens, which have the last n ids below `new_size`.

    Rows of old tokens stay bitwise equal. Where the table has spare rows without a token, new tokens take these first.
    Padding rows are zero. A new row e [D] and its decoder bias b are initialised by one of:

      subword_mean: the mean of its old pieces' rows and biases (FVT, Gee et al. 2022; AVocaDo, Hong et al. 2021). The
        decoder is tied, so the new logit is the mean of the pieces' logits in every context.
      mean: the mean of all old rows and biases, with noise of 0.01 standard deviations of each column in the row, much
        as transformers' `mean_resizing` (Hewitt 2021). A new token then has about the average old logit.
      normal: N(0, init_std²) and bias 0, as in a model that is trained from scratch.

    Args:
      params: of a `MaskedLM`, with `encoder/embeddings/word [Vp, D]` and `mlm_head/bias [Vp]`; not changed.
      config: the model's, with the old `vocab_size` V.
      new_size: number of ids of the new tokenizer, i.e. its largest + 1; V stays if it is larger.
      pieces: [n] the old ids that stood for each new token, in the order of the new ids (`ExtendedTokenizer.pieces`).
      init: as `vocab.init`: subword_mean, mean or normal.
      seed: for the random numbers of `mean` and `normal`.

    Returns:
      The parameters, with the two resized leaves as NumPy arrays and the others unchanged, and the config with the new
      V.

    Raises:
      UserError: an unknown `init`; a model with an exBERT extension.
      ValueError: ids that do not come directly after the model's.
    """
    if config.extension:
        raise UserError(
            "the model has an exBERT extension, whose tokens come after the base's: no tokens can be put between them"
        )
    first = new_size - len(pieces)
    if not 0 < first <= config.vocab_size:
        raise ValueError(f"the new tokens begin at id {first}, but the model has rows for {config.vocab_size}")
    if any(not 0 <= piece < first for parts in pieces for piece in parts) or not all(pieces):
        raise ValueError(f"every new token needs old pieces, of ids below {first}")
    config = replace(config, vocab_size=max(new_size, config.vocab_size))
    word = np.asarray(params["encoder"]["embeddings"]["word"])
    bias = np.asarray(params["mlm_head"]["bias"])
    rows, biases = _new_rows(word[:first], bias[:first], pieces, init, config.init_std, seed)
    embeddings = {**params["encoder"]["embeddings"], "word": _with_rows(word, rows, first, config)}
    encoder = {**params["encoder"], "embeddings": embeddings}
    head = {**params["mlm_head"], "bias": _with_rows(bias, biases, first, config)}
    return {**params, "encoder": encoder, "mlm_head": head}, config


def _with_rows(old: np.ndarray, new: np.ndarray, first: int, config: EncoderConfig) -> np.ndarray:
    """Return `old` [Vp, ...] with `new` [n, ...] from row `first` on, in the padded size of `config`."""
    table = np.zeros((config.padded_vocab, *old.shape[1:]), old.dtype)
    size = min(len(old), len(table))
    table[:size] = old[:size]
    table[first : first + len(new)] = new
    return table


def _new_rows(word: np.ndarray, bias: np.ndarray, pieces: Sequence[Sequence[int]], init: str, init_std: float,
              seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return new rows [n, D] and biases [n], made of the old ones, [first, D] and [first]."""
    n, width = len(pieces), word.shape[1]
    random = np.random.default_rng(seed)
    check_value("vocab.init", init)
    if init == "normal":
        return (init_std * random.standard_normal((n, width))).astype(word.dtype), np.zeros(n, bias.dtype)
    if init == "mean":
        noise = MEAN_NOISE * word.std(axis=0, keepdims=True, dtype=np.float64) * random.standard_normal((n, width))
        rows = word.mean(axis=0, keepdims=True, dtype=np.float64) + noise
        return rows.astype(word.dtype), np.full(n, bias.mean(dtype=np.float64), bias.dtype)
    rows = (
        np.stack([word[list(parts)].mean(axis=0, dtype=np.float64) for parts in pieces]) if n else np.zeros((0, width))
    )
    biases = np.array([bias[list(parts)].mean(dtype=np.float64) for parts in pieces], bias.dtype)
    return rows.astype(word.dtype), biases
