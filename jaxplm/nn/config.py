"""Sizes and constants of an encoder, independent of any file format."""

import dataclasses
from dataclasses import dataclass

from jaxplm.errors import UserError

VOCAB_MULTIPLE = 128  # matrix units and the tensor axis of a mesh need the vocabulary in multiples of this


def padded(vocab_size: int) -> int:
    """Return the vocabulary size rounded up to a multiple of 128. The padding rows never get a probability."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


@dataclass(frozen=True)
class ExtensionConfig:
    """Sizes of exBERT's extension: new tokens, and a narrower block beside each block of the base. See `nn.exbert`."""

    tokens: int  # Vx: their ids follow those of the base
    width: int  # of the attention, all heads together
    heads: int
    ffn_width: int
    gate_bias: float = 5.0  # a gate starts at sigmoid(gate_bias): the base's share of each block's output

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def padded_tokens(self) -> int:
        """Vxp: rows of the table of new tokens."""
        return padded(self.tokens)


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of an encoder of BERT's architecture. Lengths are in tokens, widths in features.

    Whatever distinguishes one model family from another is a field here; `model_type` is only a label.
    """

    model_type: str  # transformers' name of the family: bert, roberta, ...
    vocab_size: int  # of the base, if there is an extension
    width: int  # D
    layers: int  # N
    heads: int  # H
    ffn_width: int  # F
    max_positions: int  # tokens per row at most; the position table has `position_offset` more rows
    head_width: int = 0  # Dh; 0 means width / heads
    position_offset: int = 0  # row of the position table for a text's first token
    token_types: int = 2  # rows of the token-type table; 0: there is no such table
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    pad_id: int = 0
    pads_take_no_position: bool = False  # whether pad tokens in a text are left out where positions are counted
    pooler: bool = False
    extension: ExtensionConfig | None = None
    head_dropout_first: bool = False  # whether a head on [CLS] has dropout before its dense layer too
    pair_head: bool = False  # whether there is a classifier of pairs on the pooler, see `nn.heads.SentencePairHead`

    def __post_init__(self) -> None:
        if not self.head_width:
            object.__setattr__(self, "head_width", self.width // self.heads)

    @property
    def head_widths(self) -> tuple[int, ...]:
        """Dh, followed by that of the extension's narrower heads if there is one."""
        return (self.head_width, *((self.extension.head_width,) if self.extension else ()))

    @property
    def padded_vocab(self) -> int:
        """Vp: rows of the word table."""
        return padded(self.vocab_size)

    @property
    def total_vocab(self) -> int:
        """V: number of tokens, including those of the extension."""
        return self.vocab_size + (self.extension.tokens if self.extension else 0)

    @property
    def pad_rows(self) -> int:
        """Rows of the word tables that belong to no token."""
        own = self.extension.padded_tokens - self.extension.tokens if self.extension else 0
        return self.padded_vocab - self.vocab_size + own

    def with_dropout(self, dropout: float | None, attention_dropout: float | None) -> "EncoderConfig":
        """Return the config with these rates; None keeps a rate."""
        rates = {"dropout": dropout, "attention_dropout": attention_dropout}
        return dataclasses.replace(self, **{name: rate for name, rate in rates.items() if rate is not None})

    def check_length(self, length: int, field: str, source: str) -> None:
        """Raise UserError if rows of `length` tokens have more positions than the model.

        Args:
          length: tokens per row.
          field: the setting that gives the length, for the message.
          source: the name of the model in the message.
        """
        if length > self.max_positions:
            raise UserError(f"{field}={length}: {source} has only {self.max_positions} positions")
