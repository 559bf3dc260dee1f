"""The shape of an encoder, free of any outside format."""

from dataclasses import dataclass

VOCAB_MULTIPLE = 128  # matrix units and the tensor axis both want the vocabulary in multiples of this


def padded(vocab_size: int) -> int:
    """The vocabulary rounded up to a multiple of 128; the pad rows never get a probability."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


@dataclass(frozen=True)
class ExtensionConfig:
    """Sizes of exBERT's extension: new tokens, and a narrower block beside each block of the base; see `nn.extension`."""

    tokens: int  # Vx: their ids follow the base's
    width: int  # of its attention, all heads together
    heads: int
    ffn_width: int
    gate_bias: float = 5.0  # the gates begin at σ of it: the base's share of each block's output

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def padded_tokens(self) -> int:
        """Vxp: rows of its table."""
        return padded(self.tokens)


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of a BERT or RoBERTa encoder. Lengths are in tokens, widths in features."""

    model_type: str  # transformers' name: bert, roberta, xlm-roberta, camembert
    vocab_size: int  # the base's, where there is an extension
    width: int  # D
    layers: int  # N
    heads: int  # H
    ffn_width: int  # F
    max_positions: int  # usable ones: RoBERTa's table is `position_offset` longer
    head_width: int = 0  # Dh; 0 means width / heads
    position_offset: int = 0  # RoBERTa counts positions from pad_id + 1
    token_types: int = 2  # 0: the checkpoint has no such table
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    pad_id: int = 0
    pooler: bool = False
    extension: ExtensionConfig | None = None
    head_dropout_first: bool = False  # of a head on [CLS]: dropout before its dense layer too, as RoBERTa has it
    pair_head: bool = False  # on the pooler: are two segments next to each other? See `nn.heads.SentencePairHead`

    def __post_init__(self) -> None:
        if not self.head_width:
            object.__setattr__(self, "head_width", self.width // self.heads)

    @property
    def head_widths(self) -> tuple[int, ...]:
        """Dh, and with an extension that of its narrower heads."""
        return (self.head_width, *((self.extension.head_width,) if self.extension else ()))

    @property
    def padded_vocab(self) -> int:
        """Vp: rows of the word table."""
        return padded(self.vocab_size)

    @property
    def total_vocab(self) -> int:
        """V: how many tokens there are, the extension's among them."""
        return self.vocab_size + (self.extension.tokens if self.extension else 0)

    @property
    def pad_rows(self) -> int:
        """Rows of the word tables that are no token's."""
        return self.padded_vocab - self.vocab_size + (self.extension.padded_tokens - self.extension.tokens if self.extension else 0)
