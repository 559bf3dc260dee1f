"""Tensors of a transformers checkpoint → our parameter tree, every problem found at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxplm.errors import UserError
from jaxplm.hf.names import (
    MASKED_LM,
    Slot,
    canonical,
    decoder_aliases,
    family_of,
    is_buffer,
    is_mlm_head,
    is_other_head,
    is_pair_head,
    is_pooler,
    leaf_of,
    own_slots,
    pooler_slots,
    slots,
    token_type_table,
)
from jaxplm.hf.tensors import Tensors, listed
from jaxplm.nn import EncoderConfig, HeadConfig, abstract_model, abstract_task_model, random_head_params

Params = dict[str, Any]

# What stands on the encoder, and may be absent from a checkpoint: branches of our tree.
_MAY_LACK = {"mlm_head": "MLM head", "pooler": "pooler", "pair_head": "head of sentence pairs"}


def params_from(tensors: Tensors, config: EncoderConfig, source: str, *, tied: bool = True,
                seed: int = 0, pooler: bool = True, pairs: bool = False) -> tuple[EncoderConfig, Params, list[str]]:
    """Fill the tree of a `MaskedLM` with a checkpoint's tensors.

    Args:
      tensors: of the checkpoint; encoder names with or without transformers' prefix.
      config: from config.json; whether there is a pooler and a token-type table is settled here.
      source: how messages call the checkpoint.
      tied: config.json's `tie_word_embeddings`.
      seed: of the parts that the checkpoint lacks and that start at random.
      pooler: whether one that the checkpoint has is taken.
      pairs: with a pooler and a head of sentence pairs in any case.

    Returns:
      The settled config; nested dicts of float32 arrays, the vocabulary padded with zeros; and one line
      for everything that was left out, taken for granted or initialised.

    Raises:
      UserError: names missing or not known, shapes or dtypes that do not fit: all in one message; pairs of a model that
        is no BERT or has no token types.
    """
    found, notes = _by_canonical_name(tensors, config, source, MASKED_LM, pairs)
    if not pooler:
        _leave_out(found, is_pooler)
    config = _settled(config, found, notes, source)
    if pairs:
        check_pairs(config, source)
        config = replace(config, pooler=True, pair_head=True)
    shapes = abstract_model(config)[1]
    wanted = list(slots(config, shapes))
    notes += _resolve_decoder(tensors, found, config, tied, source)
    absent = [branch for branch in _MAY_LACK if branch in shapes
              and not any(slot.path.startswith(f"{branch}/") and slot.name in found for slot in wanted)]
    if "mlm_head" in absent:  # and the extension's decoder with it, whose bias stays zero
        wanted = [slot for slot in wanted if not is_mlm_head(slot.name)]
    for branch in absent:
        wanted = [slot for slot in wanted if not slot.path.startswith(f"{branch}/")]
        notes.append(f"{source} has no {_MAY_LACK[branch]}: initialised at random")
    _check(tensors, found, wanted, config, source)

    params = _fill(_zeros(shapes), tensors, found, wanted)
    for branch in absent:
        _initialise(params[branch], config.init_std, np.random.default_rng(seed))
    return config, params, notes


def check_pairs(config: EncoderConfig, source: str) -> None:
    """Raise UserError for a model that cannot tell the two segments of a pair apart as BERT does."""
    if family_of(config.model_type) != "bert" or config.token_types < 2:
        raise UserError(f"model.pairs: {source} is a {config.model_type} with {config.token_types} token type(s), and sentence pairs"
                        " need a BERT, which has two; leave model.pairs empty")


def task_params_from(tensors: Tensors, config: EncoderConfig, head: HeadConfig, source: str, *, architecture: str, new_head: bool,
                     tied: bool = True, seed: int = 0, pooler: bool = True) -> tuple[EncoderConfig, Params, list[str]]:
    """Fill the tree of a `TaskModel`; arguments, results and errors as in `params_from`.

    Args:
      architecture: of the checkpoint, where the head is its own and transformers has such; else `ENCODER`.
      new_head: random weights, but for BERT's pooler, which becomes the layer below the output where the head looks at
        [CLS] as the pooler does. With `ENCODER` and no new head, the subtree "head" is left zero.
      seed: of a new head.
    """
    found, notes = _by_canonical_name(tensors, config, source, architecture)
    config = replace(_settled(config, found, notes, source), pooler=False)
    shapes = abstract_task_model(config, head)[1]
    notes += _resolve_decoder(tensors, found, config, tied, source)
    _leave_out(found, is_mlm_head)
    wanted = list(slots(config, shapes, architecture))
    params = _zeros(shapes)
    if new_head:
        params["head"] = jax.tree.map(np.array, random_head_params(config, head, seed))
        begun = _begun_by_pooler(config, head, shapes, found) if pooler else []
        wanted += begun
        notes.append(f"{source}: the {head.kind} head is new: "
                     + ("its first layer is the checkpoint's pooler, the rest random" if begun else "random weights"))
    if not any(is_pooler(slot.name) for slot in wanted) and _leave_out(found, is_pooler) and pooler:
        notes.append(f"{source}: left out the pooler, which this head does not use")
    _check(tensors, found, wanted, config, source)
    return config, _fill(params, tensors, found, wanted), notes


def _begun_by_pooler(config: EncoderConfig, head: HeadConfig, shapes: Params, found: dict[str, str]) -> list[Slot]:
    """The pooler's tensors as those of `head/dense`, where the checkpoint has them and they have learned to see [CLS]."""
    if family_of(config.model_type) != "bert" or not head.pooled or head.pooling != "cls":
        return []
    return [slot for slot in pooler_slots(config, shapes, "head/dense") if slot.name in found]


def own_head_from(tensors: Tensors, config: EncoderConfig, head: HeadConfig, source: str) -> Params:
    """The subtree "head" from tensors that bear our own names. Raises UserError as `params_from` does."""
    shapes = abstract_task_model(config, head)[1]
    wanted = list(own_slots(shapes, "head"))
    found = {name: name for name in tensors}
    _check(tensors, found, wanted, config, source)
    return _fill({"head": _zeros(shapes["head"])}, tensors, found, wanted)["head"]


def _zeros(shapes: Params) -> Params:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def _fill(params: Params, tensors: Tensors, found: dict[str, str], wanted: Sequence[Slot]) -> Params:
    for slot in wanted:
        slot.put(leaf_of(params, slot.path), tensors.read(found[slot.name]))
    return params


def _leave_out(found: dict[str, str], which: Any) -> bool:
    """Take the tensors that `which` is true of out of `found`; whether there were any."""
    names = [name for name in found if which(name)]
    for name in names:
        del found[name]
    return bool(names)


def _by_canonical_name(tensors: Tensors, config: EncoderConfig, source: str, architecture: str,
                       pairs: bool = False) -> tuple[dict[str, str], list[str]]:
    """Today's name → the name in the file, without what no encoder needs; and what was left out, in words."""
    found: dict[str, str] = {}
    dropped, twice = [], []
    for name in tensors:
        today = canonical(name, config.model_type)
        if is_other_head(name, family_of(config.model_type), architecture) and not (pairs and is_pair_head(name)):
            dropped.append(name)
        elif today in found:
            twice.append(name)
        elif not is_buffer(name):
            found[today] = name
    if twice:
        raise UserError(f"{source} has tensors under two names each: {listed(sorted(twice))}")
    heads = sorted({name.rsplit(".", 1)[0] for name in dropped})
    return found, [f"{source}: left out the head of another task: {listed(heads)}"] if heads else []


def _settled(config: EncoderConfig, found: dict[str, str], notes: list[str], source: str) -> EncoderConfig:
    """The config with the optional parts that the weights really have."""
    pooler = any(is_pooler(name) for name in found)
    token_types = config.token_types
    table = token_type_table(config.model_type)
    if token_types == 0:
        found.pop(table, None)  # transformers writes a table of no rows
    elif table not in found:
        notes.append(f"{source} has no token-type table: goes on without one")
        token_types = 0
    return replace(config, pooler=pooler, token_types=token_types)


def _resolve_decoder(tensors: Tensors, found: dict[str, str], config: EncoderConfig, tied: bool,
                     source: str) -> list[str]:
    """Take copies of the tied decoder out of `found`, or let them stand in for an original that is absent."""
    notes = []
    for alias, name in decoder_aliases(config.model_type).items():
        if alias not in found:
            continue
        copy = found.pop(alias)
        if name not in found:
            found[name] = copy
        elif tensors.shape(copy) != tensors.shape(found[name]) or not np.array_equal(
                tensors.read(copy), tensors.read(found[name])):
            if not tied:
                raise UserError(f"{source}: {alias} differs from {name} (tie_word_embeddings is false); "
                                "a decoder of its own is not supported")
            notes.append(f"{source}: {alias} differs from {name}, to which it is tied; the latter is used")
    return notes


def _check(tensors: Tensors, found: dict[str, str], wanted: Sequence[Slot], config: EncoderConfig,
           source: str) -> None:
    """Compare in both directions; raise once with everything that does not fit."""
    known = {slot.name for slot in wanted}
    missing = [slot.name for slot in wanted if slot.name not in found]
    unexpected = [found[name] for name in found if name not in known]
    there = [(found[slot.name], slot.shape) for slot in wanted if slot.name in found]
    misfits = [f"{name} is {list(tensors.shape(name))}, not {list(shape)}"
               for name, shape in there if tensors.shape(name) != shape]
    quantized = [name for name, _ in there if not tensors.is_float(name)]
    problems = [f"{len(names)} {what}: {listed(names)}" for names, what in (
        (missing, "missing"), (unexpected, "not known"), (misfits, "of another shape"),
        (quantized, "not in floating point")) if names]
    if problems:
        raise UserError(f"{source}: the weights are not those of the {config.model_type} in config.json: "
                        + "; ".join(problems))


def _initialise(branch: Params, std: float, random: np.random.Generator) -> None:
    """BERT's initialisation: N(0, std²) kernels, unit LayerNorm, zero biases (which they already are)."""
    for name, part in branch.items():
        if isinstance(part, dict):
            _initialise(part, std, random)
        elif name == "kernel":
            part[...] = std * random.standard_normal(part.shape, np.float32)
        elif name == "scale":
            part[...] = 1
