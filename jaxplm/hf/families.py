"""The model families: what distinguishes one from another in transformers' format. One entry per `model_type`.

A family shares the architecture of BERT (Devlin et al. 2019), which `jaxplm.nn.encoder` computes. No other module tests
for a model type: it asks the entry for the fact that it needs. `docs/extend/family.md` says how to add an entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxplm.errors import UserError
from jaxplm.nn import EncoderConfig

# What follows "For" in the names of transformers' classes that hold a head.
SEQUENCE, TOKEN, SPAN = "SequenceClassification", "TokenClassification", "QuestionAnswering"


@dataclass(frozen=True)
class EncoderNames:
    """transformers' module names inside an encoder, without the family's prefix. The defaults are BERT's."""

    word: str = "embeddings.word_embeddings"
    position: str = "embeddings.position_embeddings"
    token_type: str = "embeddings.token_type_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    layer: str = "encoder.layer.{}"  # {}: the number of the layer, from 0
    # Inside a layer.
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    mlp_norm: str = "output.LayerNorm"
    # Beside the layers.
    pooler: str = "pooler.dense"

    @property
    def top(self) -> tuple[str, ...]:
        """The first components of all names, such as "encoder."; a tensor that starts with one has no prefix."""
        names = (self.word, self.position, self.token_type, self.embedding_norm, self.layer, self.pooler)
        return tuple(dict.fromkeys(f"{name.split('.')[0]}." for name in names))


@dataclass(frozen=True)
class HeadNames:
    """transformers' names in the masked-language-model head: three modules and the decoder's bias, all below `prefix`."""

    prefix: str
    dense: str
    norm: str
    bias: str = "bias"
    decoder: str = "decoder"

    def full(self, name: str) -> str:
        """Return the name with the prefix before it."""
        return f"{self.prefix}.{name}"


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
      model_type: the field of config.json, by which a checkpoint says what it is.
      class_stem: the start of transformers' class names: Bert in BertForMaskedLM.
      prefix: the encoder's name inside a model with a head; tensors of a bare encoder lack it.
      mlm_head: names in the masked-language-model head.
      task_heads: for each of transformers' head classes, (module name, our path) of every linear layer in it. {pooler} stands
        for the name of the pooler.
      pair_head: the linear layer that classifies pairs of segments from the pooler; "" if the family has no such head.
      encoder: names inside the encoder.
      positions_follow_pad: whether positions are counted from pad id + 1, as fairseq did; else from 0. A pad token in
        a text has the position pad id, and does not count for the tokens after it.
      default_pad_id: `pad_token_id` where config.json has none.
      special_tokens: role → token of a new tokenizer, in the order of their ids.
      role_aliases: further names of roles in config.json and tokenizer_config.json, such as bos → cls.
      doubled_separator: whether two sep tokens stand between the texts of a pair, and no token types tell them apart.
      token_types: rows of the token-type table of a new model.
      norm_eps: epsilon in the LayerNorms of a new model.
      head_dropout_first: whether a head on [CLS] has dropout before its dense layer as well as after it.
      norm_placement: where a block has its LayerNorms. "post", after each residual sum, is what `jaxplm.nn.blocks` computes;
        an entry that needs another placement is refused.
    """

    model_type: str
    class_stem: str
    prefix: str
    mlm_head: HeadNames
    task_heads: Mapping[str, tuple[tuple[str, str], ...]]
    special_tokens: Mapping[str, str]
    pair_head: str = ""
    encoder: EncoderNames = EncoderNames()
    positions_follow_pad: bool = False
    default_pad_id: int = 0
    role_aliases: Mapping[str, str] = field(default_factory=dict)
    doubled_separator: bool = False
    token_types: int = 2
    norm_eps: float = 1e-12
    head_dropout_first: bool = False
    norm_placement: Literal["post"] = "post"

    def __post_init__(self) -> None:
        if self.norm_placement != "post":
            raise ValueError(f"family {self.model_type}: norm_placement is {self.norm_placement!r}; jaxplm.nn.blocks computes 'post' only")

    def position_offset(self, pad_id: int) -> int:
        """Return how many rows of the position table come before the one of a text's first token."""
        return pad_id + 1 if self.positions_follow_pad else 0

    def head_modules(self, architecture: str) -> tuple[tuple[str, str], ...]:
        """Return (module name, our path) of a head's linear layers; () for an architecture that is not in the table."""
        return tuple((name.format(pooler=self.pooler), path) for name, path in self.task_heads.get(architecture, ()))

    @property
    def pooler(self) -> str:
        """The pooler's linear layer, with the prefix."""
        return f"{self.prefix}.{self.encoder.pooler}"

    @property
    def pooler_starts_head(self) -> bool:
        """Whether the pooler is the dense layer of the head that classifies sequences."""
        return (self.pooler, "head/dense") in self.head_modules(SEQUENCE)

    def encoder_config(self, pad_id: int, **sizes: Any) -> EncoderConfig:
        """Return an `EncoderConfig` with the family's facts; `sizes` are further fields, and override those facts."""
        facts = {"model_type": self.model_type, "pad_id": pad_id, "position_offset": self.position_offset(pad_id),
                 "pads_take_no_position": self.positions_follow_pad,
                 "token_types": self.token_types, "norm_eps": self.norm_eps, "head_dropout_first": self.head_dropout_first}
        return EncoderConfig(**{**facts, **sizes})


_TOKENWISE = {TOKEN: (("classifier", "head/out"),), SPAN: (("qa_outputs", "head/out"),)}

_BERT = Family(
    "bert", "Bert", "bert",
    mlm_head=HeadNames("cls.predictions", dense="transform.dense", norm="transform.LayerNorm"),
    task_heads={SEQUENCE: (("{pooler}", "head/dense"), ("classifier", "head/out")), **_TOKENWISE},
    special_tokens={"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    pair_head="cls.seq_relationship",
)


def _roberta(model_type: str, class_stem: str) -> Family:
    """Return an entry for a family that differs from RoBERTa (Liu et al. 2019) in its vocabulary only."""
    return Family(
        model_type, class_stem, "roberta",
        mlm_head=HeadNames("lm_head", dense="dense", norm="layer_norm"),
        task_heads={SEQUENCE: (("classifier.dense", "head/dense"), ("classifier.out_proj", "head/out")), **_TOKENWISE},
        special_tokens={"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
        positions_follow_pad=True,
        default_pad_id=1,
        role_aliases={"bos": "cls", "eos": "sep"},
        doubled_separator=True,
        token_types=1,
        norm_eps=1e-5,
        head_dropout_first=True,
    )


FAMILIES: dict[str, Family] = {family.model_type: family for family in (
    _BERT,
    _roberta("roberta", "Roberta"),
    _roberta("xlm-roberta", "XLMRoberta"),  # Conneau et al. 2020
    _roberta("camembert", "Camembert"),  # Martin et al. 2020
)}


def known_families() -> str:
    """Return the model types in the table, for messages: "bert, roberta, ..."."""
    return ", ".join(FAMILIES)


def family_of(model_type: str) -> Family:
    """Return the entry for a model type.

    Raises:
      UserError: the table has no such entry.
    """
    if model_type not in FAMILIES:
        raise UserError(f"model_type {model_type!r} is not supported; supported: {known_families()}")
    return FAMILIES[model_type]
