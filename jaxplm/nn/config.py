"""The shape of an encoder, free of any outside format."""

from dataclasses import dataclass

VOCAB_MULTIPLE = 128  # matrix units and the tensor axis both want the vocabulary in multiples of this


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and constants of a BERT or RoBERTa encoder. Lengths are in tokens, widths in features."""

    model_type: str  # transformers' name: bert, roberta, xlm-roberta, camembert
    vocab_size: int
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

    def __post_init__(self) -> None:
        if not self.head_width:
            object.__setattr__(self, "head_width", self.width // self.heads)

    @property
    def padded_vocab(self) -> int:
        """Vp: the vocabulary rounded up to a multiple of 128; the pad rows never get a probability."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
