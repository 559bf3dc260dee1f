"""Map each tensor of a transformers checkpoint to a part of one of our parameters. One table for reading and writing.

Differences between the two layouts:

- A linear layer's weight is [outputs, inputs] there; a kernel is [*inputs, *outputs] here.
- Layers are numbered names there, and the leading axis [N, ...] here.
- Queries, keys and values are three tensors there, and one here.
- Our vocabulary has padding rows.

The names that depend on the family come from `jaxplm.hf.families`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from jaxplm.hf.families import Family, family_of
from jaxplm.nn import EncoderConfig, ParamTree

# (field of `EncoderNames`, our path, input axes of the kernel or None for a LayerNorm, index into the fused axis)
_LAYER = (
    ("query", "attention/qkv", 1, 0),
    ("key", "attention/qkv", 1, 1),
    ("value", "attention/qkv", 1, 2),
    ("attention_out", "attention/out", 2, None),
    ("attention_norm", "attention/norm", None, None),
    ("up", "mlp/up", 1, None),
    ("down", "mlp/down", 1, None),
    ("mlp_norm", "mlp/norm", None, None),
)
_TABLES = ("word", "position", "token_type")  # fields of `EncoderNames`, and our names

MASKED_LM = "MaskedLM"
ENCODER = ""  # no head

# Constants that old versions of transformers saved with the weights.
_BUFFER = re.compile(r"(^|\.)(position_ids|token_type_ids)$")
# Heads that a checkpoint of any family may have.
_COMMON_HEADS = ("cls.seq_relationship.", "classifier.", "qa_outputs.", "score.")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint, and the part of one of our leaves that holds the same numbers.

    `params[path][index]`, reshaped to one or two dimensions and transposed if it is a kernel, is the tensor `name` of
    shape `shape`.
    """

    name: str
    path: str
    index: tuple[Any, ...]
    shape: tuple[int, ...]
    kernel: bool

    def from_leaf(self, leaf: np.ndarray) -> np.ndarray:
        """Return the checkpoint's tensor, contiguous, from our leaf."""
        part = leaf[self.index]
        tensor = part.reshape(self.shape[::-1]).T if self.kernel else part.reshape(self.shape)
        return np.ascontiguousarray(tensor).reshape(self.shape)  # ascontiguousarray makes a vector of a scalar

    def into_leaf(self, leaf: np.ndarray, tensor: np.ndarray) -> None:
        """Write the checkpoint's tensor into our leaf, cast to the leaf's dtype."""
        part = leaf[self.index]
        part[...] = (tensor.T if self.kernel else tensor).reshape(part.shape)


def leaf_of(params: ParamTree, path: str) -> Any:
    """Return the leaf at a path such as "encoder/embeddings/word"."""
    for key in path.split("/"):
        params = params[key]
    return params


# ---------------------------------------------------------------- what a tensor's name says


def canonical(name: str, model_type: str) -> str:
    """Return the name that today's transformers gives a tensor in a model with a head.

    >>> canonical("encoder.layer.0.output.LayerNorm.gamma", "bert")
    'bert.encoder.layer.0.output.LayerNorm.weight'
    """
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    family = family_of(model_type)
    return f"{family.prefix}.{name}" if name.startswith(family.encoder.top) else name


def bare(name: str, model_type: str) -> str:
    """Return the name that transformers gives a tensor in a model without a head."""
    return name.removeprefix(f"{family_of(model_type).prefix}.")


def is_buffer(name: str) -> bool:
    """Return whether a tensor is a constant that old versions saved with the weights."""
    return _BUFFER.search(name) is not None


def is_other_head(name: str, family: Family, architecture: str) -> bool:
    """Return whether a tensor belongs to a head (pairs, classifier, question answering) that `architecture` does not have."""
    own = tuple(f"{module}." for module, _ in family.head_modules(architecture))
    theirs = {f"{module}." for other in family.task_heads for module, _ in family.head_modules(other) if module != family.pooler}
    theirs |= {f"{family.pair_head}."} if family.pair_head else set()
    return name.startswith((*_COMMON_HEADS, *theirs)) and not name.startswith(own)


def is_mlm_head(name: str, family: Family) -> bool:
    """Return whether a tensor belongs to the masked-language-model head, exBERT's part included."""
    return name.startswith((family.mlm_head.full(""), "mlm_extension/"))


def is_extension(name: str) -> bool:
    """Return whether a tensor belongs to exBERT's extension, which has our own names because transformers has none."""
    return name.startswith(("encoder/extension/", "mlm_extension/"))


def is_pooler(name: str, family: Family) -> bool:
    """Return whether a tensor with a canonical name belongs to the pooler."""
    return name.startswith(f"{family.pooler}.")


def is_pair_head(name: str, family: Family) -> bool:
    """Return whether a tensor belongs to the head that classifies pairs of segments."""
    return bool(family.pair_head) and name.startswith(f"{family.pair_head}.")


def decoder_aliases(model_type: str) -> dict[str, str]:
    """Return {name under which a checkpoint may store the tied decoder a second time: name of what it is tied to}."""
    family, head = family_of(model_type), family_of(model_type).mlm_head
    return {f"{head.full(head.decoder)}.weight": f"{family.prefix}.{family.encoder.word}.weight",
            f"{head.full(head.decoder)}.bias": head.full(head.bias)}


def token_type_table(model_type: str) -> str:
    """Return the name of the one table that a checkpoint may lack."""
    family = family_of(model_type)
    return f"{family.prefix}.{family.encoder.token_type}.weight"


# ---------------------------------------------------------------- the table


def tensor_specs(config: EncoderConfig, shapes: ParamTree, architecture: str = MASKED_LM) -> Iterator[TensorSpec]:
    """Yield every tensor of a checkpoint of `config`, by canonical names.

    Args:
      config: the model.
      shapes: our tree, with leaves that have a `.shape` (arrays or `jax.ShapeDtypeStruct`s).
      architecture: what follows "For" in transformers' class name. `MASKED_LM` includes a pooler and a head for pairs if
        the config has them; `ENCODER` includes no head.
    """
    family = family_of(config.model_type)
    names, prefix = family.encoder, family.prefix
    real_rows = slice(0, config.vocab_size)  # without the rows that pad the vocabulary
    for table in _TABLES:
        if table != "token_type" or config.token_types:
            rows = (real_rows,) if table == "word" else ()
            yield _spec(shapes, f"{prefix}.{getattr(names, table)}.weight", f"encoder/embeddings/{table}", *rows, table=True)
    yield from _norm(shapes, f"{prefix}.{names.embedding_norm}", "encoder/embeddings/norm")
    for n in range(config.layers):
        for field, our_path, inputs, part in _LAYER:
            name, path = f"{prefix}.{names.layer.format(n)}.{getattr(names, field)}", f"encoder/blocks/{our_path}"
            yield from _norm(shapes, name, path, n) if inputs is None else _linear(shapes, name, path, inputs, (n,), part)
    if architecture == MASKED_LM:
        yield from _mlm_specs(config, shapes, family, real_rows)
    elif architecture != ENCODER:
        if architecture not in family.task_heads:
            raise ValueError(f"family {family.model_type} has no head {architecture!r}")
        for name, path in family.head_modules(architecture):
            yield from _linear(shapes, name, path)
    if config.extension:
        tokens = slice(0, config.extension.tokens)  # without padding rows, as above
        yield _spec(shapes, "encoder/extension/word", "encoder/extension/word", tokens, table=True)
        yield from own_specs(shapes, "encoder/extension/blocks")
        if architecture == MASKED_LM:
            yield _spec(shapes, "mlm_extension/bias", "mlm_extension/bias", tokens)


def _mlm_specs(config: EncoderConfig, shapes: ParamTree, family: Family, real_rows: slice) -> Iterator[TensorSpec]:
    """Yield what a model for masked language modelling has beside the encoder."""
    if config.pooler:
        yield from pooler_specs(config, shapes, "pooler")
    if config.pair_head:
        yield from _linear(shapes, family.pair_head, "pair_head/out")
    head = family.mlm_head
    yield from _linear(shapes, head.full(head.dense), "mlm_head/dense")
    yield from _norm(shapes, head.full(head.norm), "mlm_head/norm")
    yield _spec(shapes, head.full(head.bias), "mlm_head/bias", real_rows)


def pooler_specs(config: EncoderConfig, shapes: ParamTree, path: str) -> Iterator[TensorSpec]:
    """Yield the two tensors of the pooler, which is at `path` in our tree."""
    return _linear(shapes, family_of(config.model_type).pooler, path)


def own_specs(shapes: ParamTree, prefix: str) -> Iterator[TensorSpec]:
    """Yield every leaf below `prefix` as a tensor of our own format: its path is its name, and nothing is transposed."""
    branch = leaf_of(shapes, prefix)
    if isinstance(branch, dict):
        for key in branch:
            yield from own_specs(shapes, f"{prefix}/{key}")
    else:
        yield TensorSpec(prefix, prefix, (...,), tuple(branch.shape), kernel=False)


def _spec(shapes: ParamTree, name: str, path: str, *index: Any, kernel_inputs: int = 0, table: bool = False) -> TensorSpec:
    whole = leaf_of(shapes, path)
    part = np.broadcast_to(np.empty(()), whole.shape)[index].shape  # a view of one number: takes no memory
    if kernel_inputs:
        part = (prod(part[kernel_inputs:]), prod(part[:kernel_inputs]))
    elif not table:
        part = (prod(part),)
    return TensorSpec(name, path, index, part, bool(kernel_inputs))


def _linear(shapes: ParamTree, name: str, path: str, inputs: int = 1, layer: tuple[int, ...] = (),
            part: int | None = None) -> Iterator[TensorSpec]:
    """Yield the weight and the bias of a linear layer whose kernel has `inputs` input axes."""
    fused = () if part is None else (part,)
    yield _spec(shapes, f"{name}.weight", f"{path}/kernel", *layer, *((slice(None), *fused) if fused else ()), kernel_inputs=inputs)
    yield _spec(shapes, f"{name}.bias", f"{path}/bias", *layer, *fused)


def _norm(shapes: ParamTree, name: str, path: str, *layer: int) -> Iterator[TensorSpec]:
    """Yield the scale and the bias of a LayerNorm."""
    yield _spec(shapes, f"{name}.weight", f"{path}/scale", *layer)
    yield _spec(shapes, f"{name}.bias", f"{path}/bias", *layer)
