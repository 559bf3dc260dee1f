"""Read the tensors of a transformers checkpoint into our parameter tree, and report every problem in one message."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxplm.errors import UserError
from jaxplm.hf.families import FAMILIES, family_of
from jaxplm.hf.names import (
    MASKED_LM,
    TensorSpec,
    canonical,
    decoder_aliases,
    is_buffer,
    is_mlm_head,
    is_other_head,
    is_pair_head,
    is_pooler,
    leaf_of,
    own_specs,
    pooler_specs,
    tensor_specs,
    token_type_table,
)
from jaxplm.hf.tensors import Tensors, listed
from jaxplm.nn import EncoderConfig, HeadConfig, abstract_model, abstract_task_model, random_head_params

Params = dict[str, Any]

# Branches of our tree beside the encoder, which a checkpoint may lack.
_OPTIONAL = {"mlm_head": "MLM head", "pooler": "pooler", "pair_head": "head of sentence pairs"}


def params_from(tensors: Tensors, config: EncoderConfig, source: str, *, tied: bool = True,
                seed: int = 0, pooler: bool = True, pairs: bool = False) -> tuple[EncoderConfig, Params, list[str]]:
    """Fill the tree of a `MaskedLM` with a checkpoint's tensors.

    Args:
      tensors: of the checkpoint; names of the encoder with or without transformers' prefix.
      config: from config.json. Whether there is a pooler and a token-type table is decided here.
      source: the name of the checkpoint in messages.
      tied: `tie_word_embeddings` of config.json.
      seed: for the parts that the checkpoint lacks and that start with random weights.
      pooler: whether to keep the checkpoint's pooler.
      pairs: whether the result has a pooler and a head that classifies pairs in any case.

    Returns:
      The final config; nested dicts of float32 arrays, the vocabulary padded with zeros; and one line for everything
      that was left out, assumed or initialised.

    Raises:
      UserError: names that are missing or not known, shapes or dtypes that do not fit, all in one message; `pairs` for a
        model that has no head for pairs or no second token type.
    """
    names, notes = _names_in_file(tensors, config, source, MASKED_LM, pairs)
    family = family_of(config.model_type)
    if not pooler:
        _leave_out(names, lambda name: is_pooler(name, family))
    config = _with_optional_parts(config, names, notes, source)
    if pairs:
        check_pairs(config, source)
        config = replace(config, pooler=True, pair_head=True)
    shapes = abstract_model(config)[1]
    wanted = list(tensor_specs(config, shapes))
    notes += _resolve_decoder(tensors, names, config, tied, source)
    absent = [branch for branch in _OPTIONAL if branch in shapes
              and not any(spec.path.startswith(f"{branch}/") and spec.name in names for spec in wanted)]
    if "mlm_head" in absent:  # the decoder of an extension too: its bias stays zero
        wanted = [spec for spec in wanted if not is_mlm_head(spec.name, family)]
    for branch in absent:
        wanted = [spec for spec in wanted if not spec.path.startswith(f"{branch}/")]
        notes.append(f"{source} has no {_OPTIONAL[branch]}: initialised at random")
    _check(tensors, names, wanted, config, source)

    params = _fill(_zeros(shapes), tensors, names, wanted)
    for branch in absent:
        _initialise(params[branch], config.init_std, np.random.default_rng(seed))
    return config, params, notes


def check_pairs(config: EncoderConfig, source: str) -> None:
    """Raise UserError for a model that cannot tell the two segments of a pair apart as BERT does."""
    if not family_of(config.model_type).pair_head or config.token_types < 2:
        able = ", ".join(family.model_type for family in FAMILIES.values() if family.pair_head)
        raise UserError(f"model.pairs: {source} is a {config.model_type} with {config.token_types} token type(s); sentence pairs need a"
                        f" model of type {able} with two token types; leave model.pairs empty")


def task_params_from(tensors: Tensors, config: EncoderConfig, head: HeadConfig, source: str, *, architecture: str, new_head: bool,
                     tied: bool = True, seed: int = 0, pooler: bool = True) -> tuple[EncoderConfig, Params, list[str]]:
    """Fill the tree of a `TaskModel` with a checkpoint's tensors.

    Arguments, results and errors that are not described are those of `params_from`.

    Args:
      architecture: of the checkpoint, if it has a head that transformers has a class for; else `ENCODER`.
      new_head: whether the head gets random weights. If it looks at [CLS], the checkpoint's pooler becomes its first layer
        in families where it is that layer. With `ENCODER` and no new head, the subtree "head" stays zero.
      seed: for a new head.
    """
    names, notes = _names_in_file(tensors, config, source, architecture)
    family = family_of(config.model_type)
    config = replace(_with_optional_parts(config, names, notes, source), pooler=False)
    shapes = abstract_task_model(config, head)[1]
    notes += _resolve_decoder(tensors, names, config, tied, source)
    _leave_out(names, lambda name: is_mlm_head(name, family))
    wanted = list(tensor_specs(config, shapes, architecture))
    if new_head:
        from_pooler = _first_layer_from_pooler(config, head, shapes, names) if pooler else []
        wanted += from_pooler
        notes.append(f"{source}: the {head.kind} head is new: "
                     + ("its first layer is the checkpoint's pooler, the rest random" if from_pooler else "random weights"))
    uses_pooler = any(is_pooler(spec.name, family) for spec in wanted)
    if not uses_pooler and _leave_out(names, lambda name: is_pooler(name, family)) and pooler:
        notes.append(f"{source}: left out the pooler, which this head does not use")
    _check(tensors, names, wanted, config, source)
    params = _zeros(shapes)
    if new_head:
        params["head"] = jax.tree.map(np.array, random_head_params(config, head, seed))
    return config, _fill(params, tensors, names, wanted), notes


def _first_layer_from_pooler(config: EncoderConfig, head: HeadConfig, shapes: Params, names: dict[str, str]) -> list[TensorSpec]:
    """Return the pooler's tensors as those of `head/dense`, if the checkpoint has them and the head reads [CLS] as the pooler does."""
    if not family_of(config.model_type).pooler_starts_head or not head.pooled or head.pooling != "cls":
        return []
    return [spec for spec in pooler_specs(config, shapes, "head/dense") if spec.name in names]


def own_head_from(tensors: Tensors, config: EncoderConfig, head: HeadConfig, source: str) -> Params:
    """Return the subtree "head" from tensors that have our own names; raise UserError as `params_from` does."""
    shapes = abstract_task_model(config, head)[1]
    wanted = list(own_specs(shapes, "head"))
    names = {name: name for name in tensors}
    _check(tensors, names, wanted, config, source)
    return _fill({"head": _zeros(shapes["head"])}, tensors, names, wanted)["head"]


# ---------------------------------------------------------------- names: {today's name: name in the file}


def _names_in_file(tensors: Tensors, config: EncoderConfig, source: str, architecture: str,
                   pairs: bool = False) -> tuple[dict[str, str], list[str]]:
    """Return {today's name: name in the file}, without constants and the heads of other tasks, and a note about those heads."""
    family = family_of(config.model_type)
    names: dict[str, str] = {}
    dropped, twice = [], []
    for name in tensors:
        today = canonical(name, config.model_type)
        if is_other_head(name, family, architecture) and not (pairs and is_pair_head(name, family)):
            dropped.append(name)
        elif today in names:
            twice.append(name)
        elif not is_buffer(name):
            names[today] = name
    if twice:
        raise UserError(f"{source} has tensors under two names each: {listed(sorted(twice))}")
    heads = sorted({name.rsplit(".", 1)[0] for name in dropped})
    return names, [f"{source}: left out the head of another task: {listed(heads)}"] if heads else []


def _leave_out(names: dict[str, str], condition: Callable[[str], bool]) -> bool:
    """Remove the names for which `condition` holds; return whether there were any."""
    matching = [name for name in names if condition(name)]
    for name in matching:
        del names[name]
    return bool(matching)


def _with_optional_parts(config: EncoderConfig, names: dict[str, str], notes: list[str], source: str) -> EncoderConfig:
    """Return the config with a pooler and a token-type table only if the checkpoint has them."""
    family = family_of(config.model_type)
    pooler = any(is_pooler(name, family) for name in names)
    token_types = config.token_types
    table = token_type_table(config.model_type)
    if token_types == 0:
        names.pop(table, None)  # transformers writes a table without rows
    elif table not in names:
        notes.append(f"{source} has no token-type table: the model is used without one")
        token_types = 0
    return replace(config, pooler=pooler, token_types=token_types)


def _resolve_decoder(tensors: Tensors, names: dict[str, str], config: EncoderConfig, tied: bool, source: str) -> list[str]:
    """Remove copies of the tied decoder from `names`, or use them in place of an original that is absent; return notes."""
    notes = []
    for alias, name in decoder_aliases(config.model_type).items():
        if alias not in names:
            continue
        copy = names.pop(alias)
        if name not in names:
            names[name] = copy
        elif tensors.shape(copy) != tensors.shape(names[name]) or not np.array_equal(
                tensors.read(copy), tensors.read(names[name])):
            if not tied:
                raise UserError(f"{source}: {alias} differs from {name} (tie_word_embeddings is false); a decoder that is not"
                                " tied is not supported")
            notes.append(f"{source}: {alias} differs from {name}, to which it is tied; the latter is used")
    return notes


def _check(tensors: Tensors, names: dict[str, str], wanted: Sequence[TensorSpec], config: EncoderConfig, source: str) -> None:
    """Compare what there is with what is wanted; raise UserError once, with everything that does not fit."""
    known = {spec.name for spec in wanted}
    missing = [spec.name for spec in wanted if spec.name not in names]
    unexpected = [names[name] for name in names if name not in known]
    present = [(names[spec.name], spec.shape) for spec in wanted if spec.name in names]
    misfits = [f"{name} is {list(tensors.shape(name))}, not {list(shape)}"
               for name, shape in present if tensors.shape(name) != shape]
    quantized = [name for name, _ in present if not tensors.is_float(name)]
    problems = [f"{len(found)} {what}: {listed(found)}" for found, what in (
        (missing, "missing"), (unexpected, "not known"), (misfits, "of another shape"),
        (quantized, "not in floating point")) if found]
    if problems:
        raise UserError(f"{source}: the weights are not those of the {config.model_type} in config.json: " + "; ".join(problems))


# ---------------------------------------------------------------- values


def _zeros(shapes: Params) -> Params:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def _fill(params: Params, tensors: Tensors, names: dict[str, str], wanted: Sequence[TensorSpec]) -> Params:
    for spec in wanted:
        spec.into_leaf(leaf_of(params, spec.path), tensors.read(names[spec.name]))
    return params


def _initialise(branch: Params, std: float, random: np.random.Generator) -> None:
    """Set BERT's initial values: kernels from N(0, std²), LayerNorm scales 1. Biases are zero already."""
    for name, part in branch.items():
        if isinstance(part, dict):
            _initialise(part, std, random)
        elif name == "kernel":
            part[...] = std * random.standard_normal(part.shape, np.float32)
        elif name == "scale":
            part[...] = 1
