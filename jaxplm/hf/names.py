"""The one table between transformers' tensor names and our parameter paths, read in both directions.

A linear layer's weight is [outputs, inputs] there and a kernel [*inputs, *outputs] here; layers are
numbered names there and the leading axis [N, ...] here; queries, keys and values are three tensors
there and one here; the vocabulary is padded here. No other module knows a name of transformers'.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from jaxplm.hf.config import is_roberta
from jaxplm.nn import EncoderConfig, ParamTree

# (transformers' module, our path, input axes of the kernel or None for LayerNorm, index into the fused axis)
_BLOCK = (
    ("attention.self.query", "attention/qkv", 1, 0),
    ("attention.self.key", "attention/qkv", 1, 1),
    ("attention.self.value", "attention/qkv", 1, 2),
    ("attention.output.dense", "attention/out", 2, None),
    ("attention.output.LayerNorm", "attention/norm", None, None),
    ("intermediate.dense", "mlp/up", 1, None),
    ("output.dense", "mlp/down", 1, None),
    ("output.LayerNorm", "mlp/norm", None, None),
)
_TABLES = (("word_embeddings", "word"), ("position_embeddings", "position"),
           ("token_type_embeddings", "token_type"))

# (dense, norm, bias, decoder) of the MLM head
_HEAD_NAMES = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
             "cls.predictions.decoder"),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
}

# The modules of each task's head, by what comes after "For" in the name of its class. BERT's classifier stands on
# the pooler; RoBERTa's brings the same layer along, under another name.
_TASK_HEADS = {
    ("bert", "SequenceClassification"): (("bert.pooler.dense", "head/dense"), ("classifier", "head/out")),
    ("roberta", "SequenceClassification"): (("classifier.dense", "head/dense"), ("classifier.out_proj", "head/out")),
    ("bert", "TokenClassification"): (("classifier", "head/out"),),
    ("roberta", "TokenClassification"): (("classifier", "head/out"),),
    ("bert", "QuestionAnswering"): (("qa_outputs", "head/out"),),
    ("roberta", "QuestionAnswering"): (("qa_outputs", "head/out"),),
}
_PAIR_HEAD = "cls.seq_relationship"  # BERT's, on the pooler
MASKED_LM = "MaskedLM"
ENCODER = ""  # no head

# What checkpoints carry beside the weights: constants, and heads of other tasks.
_BUFFER = re.compile(r"(^|\.)(position_ids|token_type_ids)$")
_OTHER_HEAD = re.compile(r"^(cls\.seq_relationship|classifier|qa_outputs|score)\.")
_MLM_HEAD = re.compile(r"^((cls\.predictions|lm_head)\.|mlm_extension/)")


@dataclass(frozen=True)
class Slot:
    """One tensor of transformers' and the part of one of our leaves that holds the same numbers.

    `params[path][index]`, seen as one or two dimensions and transposed if it is a kernel, is the tensor
    `name` of shape `shape`.
    """

    name: str
    path: str
    index: tuple[Any, ...]
    shape: tuple[int, ...]
    kernel: bool

    def take(self, leaf: np.ndarray) -> np.ndarray:
        """Our leaf → transformers' tensor, contiguous."""
        part = leaf[self.index]
        tensor = part.reshape(self.shape[::-1]).T if self.kernel else part.reshape(self.shape)
        return np.ascontiguousarray(tensor).reshape(self.shape)  # the former makes a vector of a scalar

    def put(self, leaf: np.ndarray, tensor: np.ndarray) -> None:
        """Write transformers' tensor into our leaf, cast to the leaf's dtype."""
        part = leaf[self.index]
        part[...] = (tensor.T if self.kernel else tensor).reshape(part.shape)


def leaf_of(params: ParamTree, path: str) -> Any:
    """The leaf at a path like "encoder/embeddings/word"."""
    for key in path.split("/"):
        params = params[key]
    return params


def family_of(model_type: str) -> str:
    """"bert" or "roberta": whose names a model type uses, for the encoder's prefix and for the head."""
    return "roberta" if is_roberta(model_type) else "bert"


def canonical(name: str, model_type: str) -> str:
    """A tensor's name as today's transformers writes it in a model with a head.

    >>> canonical("encoder.layer.0.output.LayerNorm.gamma", "bert")
    'bert.encoder.layer.0.output.LayerNorm.weight'
    """
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    bare = name.startswith(("embeddings.", "encoder.", "pooler."))
    return f"{family_of(model_type)}.{name}" if bare else name


def bare(name: str, model_type: str) -> str:
    """A tensor's name as transformers writes it in a model without a head."""
    return name.removeprefix(f"{family_of(model_type)}.")


def is_buffer(name: str) -> bool:
    """A constant that old versions saved among the weights."""
    return _BUFFER.search(name) is not None


def is_other_head(name: str, family: str, architecture: str) -> bool:
    """Part of a head (next sentence, classifier, question answering) that a model of `architecture` lacks."""
    own = tuple(f"{module}." for module, _ in _TASK_HEADS.get((family, architecture), ()))
    return _OTHER_HEAD.match(name) is not None and not name.startswith(own)


def is_mlm_head(name: str) -> bool:
    """Part of the masked-language-model head."""
    return _MLM_HEAD.match(name) is not None


def is_extension(name: str) -> bool:
    """Part of exBERT's extension; transformers has no such thing, so these names are ours."""
    return name.startswith(("encoder/extension/", "mlm_extension/"))


def is_pooler(name: str) -> bool:
    """Part of the pooler, by its canonical or its bare name."""
    return ".pooler." in f".{name}"


def is_pair_head(name: str) -> bool:
    """Part of the head of sentence pairs."""
    return name.startswith(f"{_PAIR_HEAD}.")


def decoder_aliases(model_type: str) -> dict[str, str]:
    """Names under which some checkpoints store the tied decoder again → the names of what it is tied to."""
    family = family_of(model_type)
    _, _, bias, decoder = _HEAD_NAMES[family]
    return {f"{decoder}.weight": f"{family}.embeddings.word_embeddings.weight", f"{decoder}.bias": bias}


def token_type_table(model_type: str) -> str:
    """The name of the one table that a checkpoint may lack."""
    return f"{family_of(model_type)}.embeddings.token_type_embeddings.weight"


def _slot(shapes: ParamTree, name: str, path: str, *index: Any, kernel_inputs: int = 0, table: bool = False) -> Slot:
    whole = leaf_of(shapes, path)
    part = np.broadcast_to(np.empty(()), whole.shape)[index].shape  # a view of one number: no memory
    if kernel_inputs:
        part = (prod(part[kernel_inputs:]), prod(part[:kernel_inputs]))
    elif not table:
        part = (prod(part),)
    return Slot(name, path, index, part, bool(kernel_inputs))


def _affine(shapes: ParamTree, name: str, path: str, inputs: int = 1, layer: tuple[int, ...] = (),
            part: int | None = None) -> Iterator[Slot]:
    fused = () if part is None else (part,)
    yield _slot(shapes, f"{name}.weight", f"{path}/kernel", *layer, *((slice(None), *fused) if fused else ()),
                kernel_inputs=inputs)
    yield _slot(shapes, f"{name}.bias", f"{path}/bias", *layer, *fused)


def _norm(shapes: ParamTree, name: str, path: str, *layer: int) -> Iterator[Slot]:
    yield _slot(shapes, f"{name}.weight", f"{path}/scale", *layer)
    yield _slot(shapes, f"{name}.bias", f"{path}/bias", *layer)


def slots(config: EncoderConfig, shapes: ParamTree, architecture: str = MASKED_LM) -> Iterator[Slot]:
    """Every tensor of a checkpoint of `config`, by canonical names.

    Args:
      shapes: our tree with leaves that have a `.shape` (arrays or `jax.ShapeDtypeStruct`s).
      architecture: what comes after "For" in transformers' class name; `MASKED_LM` has, if the config has them,
        a pooler and a head of sentence pairs as well; `ENCODER` has nothing on it.
    """
    family = family_of(config.model_type)
    real = slice(0, config.vocab_size)  # without the rows that pad the vocabulary
    for theirs, ours in _TABLES:
        if ours != "token_type" or config.token_types:
            rows = (real,) if ours == "word" else ()
            name = f"{family}.embeddings.{theirs}.weight"
            yield _slot(shapes, name, f"encoder/embeddings/{ours}", *rows, table=True)
    yield from _norm(shapes, f"{family}.embeddings.LayerNorm", "encoder/embeddings/norm")
    for n in range(config.layers):
        for module, ours, inputs, part in _BLOCK:
            name, path = f"{family}.encoder.layer.{n}.{module}", f"encoder/blocks/{ours}"
            yield from _norm(shapes, name, path, n) if inputs is None else _affine(shapes, name, path, inputs, (n,), part)
    if architecture == MASKED_LM:
        if config.pooler:
            yield from pooler_slots(config, shapes, "pooler")
        if config.pair_head:
            yield from _affine(shapes, _PAIR_HEAD, "pair_head/out")
        dense, layer_norm, bias, _ = _HEAD_NAMES[family]
        yield from _affine(shapes, dense, "mlm_head/dense")
        yield from _norm(shapes, layer_norm, "mlm_head/norm")
        yield _slot(shapes, bias, "mlm_head/bias", real)
    elif architecture != ENCODER:
        for module, path in _TASK_HEADS[family, architecture]:
            yield from _affine(shapes, module, path)
    if config.extension:
        tokens = slice(0, config.extension.tokens)  # as above, without pad rows
        yield _slot(shapes, "encoder/extension/word", "encoder/extension/word", tokens, table=True)
        yield from own_slots(shapes, "encoder/extension/blocks")
        if architecture == MASKED_LM:
            yield _slot(shapes, "mlm_extension/bias", "mlm_extension/bias", tokens)


def pooler_slots(config: EncoderConfig, shapes: ParamTree, path: str) -> Iterator[Slot]:
    """The two tensors of the pooler, which are ours at `path`."""
    return _affine(shapes, f"{family_of(config.model_type)}.pooler.dense", path)


def own_slots(shapes: ParamTree, prefix: str) -> Iterator[Slot]:
    """Every leaf below `prefix` as a tensor of our own format: its path is its name, and nothing is transposed."""
    branch = leaf_of(shapes, prefix)
    if isinstance(branch, dict):
        for key in branch:
            yield from own_slots(shapes, f"{prefix}/{key}")
    else:
        yield Slot(prefix, prefix, (...,), tuple(branch.shape), kernel=False)
