"""Floating-point operations by a model's sizes: the multiplications and additions of its matrix products.

Element-wise work, and what is recomputed to save memory, does not count. A backward pass is two products of the same size for
each forward one: the gradient of the input and that of the weights. D is the model's width, F that of its feed-forward layers,
N its blocks, L the length of the rows.
"""

from typing import Literal

from jaxplm.nn.config import EncoderConfig

Trained = Literal["all", "extension", "nothing"]


def forward(config: EncoderConfig, length: float) -> float:
    """Return the operations of the blocks' forward pass per token: N · (8 D² + 4 D F + 4 L D), and those of an extension.

    Attention is counted over whole rows, as a plain kernel computes it.

    Args:
      config: of the encoder.
      length: L.
    """
    return _base(config, length) + _extension(config, length)


def mlm_head(config: EncoderConfig) -> float:
    """Return the operations of the head of masked language modelling per masked position, forward: 2 D² + 2 D · vocabulary."""
    rows = config.padded_vocab + (config.extension.padded_tokens if config.extension else 0)
    return 2.0 * config.width * (config.width + rows)


def trained(config: EncoderConfig, length: float, what: Trained = "all") -> float:
    """Return the operations of a training step per token, without the head.

    Args:
      config: of the encoder.
      length: L.
      what: "all": three times the forward pass. "extension": exBERT with a frozen base, whose weights have no gradients, but
        whose inputs have. "nothing": a frozen encoder below a head, so the forward pass alone.
    """
    match what:
        case "all":
            return 3 * forward(config, length)
        case "extension":
            return 2 * _base(config, length) + 3 * _extension(config, length)
        case "nothing":
            return forward(config, length)


def mlm_training(config: EncoderConfig, tokens: float, masked: float, length: float, what: Trained = "all") -> float:
    """Return the operations of masked language modelling on `tokens` tokens, of which `masked` are predicted.

    Args:
      config: of the encoder.
      tokens, masked: of all steps.
      length: of the rows.
      what: as in `trained`.
    """
    return tokens * trained(config, length, what) + masked * 3 * mlm_head(config)


def _base(config: EncoderConfig, length: float) -> float:
    return config.layers * _block(config.width, config.heads * config.head_width, config.ffn_width, length)


def _extension(config: EncoderConfig, length: float) -> float:
    if config.extension is None:
        return 0.0
    gate = 2.0 * config.width
    return config.layers * (_block(config.width, config.extension.width, config.extension.ffn_width, length) + gate)


def _block(width: int, inner: int, ffn_width: int, length: float) -> float:
    """Return the operations of a block per token; `inner` is the width of all heads together."""
    return 8.0 * width * inner + 4.0 * width * ffn_width + 4.0 * length * inner
