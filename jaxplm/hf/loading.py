"""Load a model directory: parameters, tokenizer and settings, whichever model it holds."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxplm.errors import UserError
from jaxplm.hf.config import config_from_hf
from jaxplm.hf.heads import HEAD_FILE, HeadKind, Kinds, head_from_hf, head_from_json, task_architecture
from jaxplm.hf.json_file import read_object
from jaxplm.hf.names import ENCODER
from jaxplm.hf.source import resolve
from jaxplm.hf.tensors import open_head, open_tensors
from jaxplm.hf.tokenizer import input_names, load_tokenizer
from jaxplm.hf.weights import own_head_from, params_from, task_params_from
from jaxplm.nn import EncoderConfig, HeadConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Loaded:
    """A masked language model as its directory holds it."""

    config: EncoderConfig
    params: dict[str, Any]  # nested dicts of float32 NumPy arrays, vocabulary padded with zeros
    tokenizer: "PreTrainedTokenizerFast"
    hf_config: dict[str, Any]  # config.json unchanged, for the export
    notes: list[str]  # one line each, for the user


@dataclass(frozen=True)
class LoadedTask(Loaded):
    """An encoder with the head of a task: the one in its directory, or a new one."""

    kind: HeadKind
    head: HeadConfig
    labels: tuple[str, ...]  # names of the C outputs; () where they have none, and for a new head


def load(path: str, *, seed: int = 0, pairs: bool = False) -> Loaded:
    """Load a model of any family in `jaxplm.hf.families`, with its tokenizer, as a masked language model.

    Args:
      path: see `resolve`.
      seed: for the random weights of heads that the checkpoint lacks.
      pairs: whether the model gets a pooler and a head that classifies pairs, from the checkpoint if it has them.

    Raises:
      UserError: nothing is there; a pickle; a family or option that is not supported; weights that do not fit
        config.json (every one of them named); a tokenizer of another model; pairs in a family without a head for them.
    """
    directory = resolve(path)
    return _load(directory, path, _read_config(directory, path), seed, pairs)


def load_task_model(path: str, kinds: Kinds, head: HeadConfig | None = None, *, seed: int = 0) -> LoadedTask:
    """Load an encoder with the head of a task, from any checkpoint that `load` reads or from a fine-tuned one.

    Args:
      path: see `resolve`.
      kinds: the kinds of tasks that there are.
      head: the new head; None takes the checkpoint's own, which it must have. A new head whose `dropout` is None gets the
        rate that config.json has for heads, if it has one.
      seed: for the random weights of a new head. BERT's pooler, if the checkpoint has one, becomes the first layer of a
        new head that reads [CLS].

    Raises:
      UserError: as `load`; or `head` is None and the checkpoint has no head of a task.
    """
    directory = resolve(path)
    return _load_task(directory, path, _read_config(directory, path), kinds, head, seed)


def load_model(path: str, kinds: Kinds) -> Loaded | LoadedTask:
    """Load the model that a directory holds: with the head of a task if it was fine-tuned, else a masked language model."""
    directory = resolve(path)
    hf_config = _read_config(directory, path)
    if _has_task_head(directory, hf_config):
        return _load_task(directory, path, hf_config, kinds, None, 0)
    return _load(directory, path, hf_config, 0)


def has_task_head(path: str) -> bool:
    """Return whether a directory holds a fine-tuned model, not a masked language model; reads no weights."""
    directory = resolve(path)
    return _has_task_head(directory, _read_config(directory, path))


def _has_task_head(directory: Path, hf_config: dict[str, Any]) -> bool:
    return (directory / HEAD_FILE).is_file() or task_architecture(hf_config) is not None


def _load(directory: Path, path: str, hf_config: dict[str, Any], seed: int, pairs: bool = False) -> Loaded:
    config = config_from_hf(hf_config, path)
    with open_tensors(directory, path) as tensors:
        config, params, notes = params_from(tensors, config, path, tied=hf_config.get("tie_word_embeddings", True), seed=seed,
                                            pooler=not (directory / HEAD_FILE).is_file(), pairs=pairs)
    tokenizer, suspicions = _tokenizer(directory, path, config)
    return Loaded(config, params, tokenizer, hf_config, notes + suspicions)


def _load_task(directory: Path, path: str, hf_config: dict[str, Any], kinds: Kinds, head: HeadConfig | None, seed: int) -> LoadedTask:
    config = config_from_hf(hf_config, path)
    custom_head = (directory / HEAD_FILE).is_file()
    new, architecture, labels = head is not None, ENCODER, ()
    if head is None:
        head, labels = head_from_json(directory, kinds, path) if custom_head else head_from_hf(hf_config, kinds, path)
        architecture = ENCODER if custom_head else kinds[head.kind].hf_class
    elif head.dropout is None and (rate := hf_config.get("classifier_dropout")) is not None:
        head = replace(head, dropout=float(rate))
    own_head = None
    if custom_head and not new:  # first: its sizes are checked before memory is taken for them
        with open_head(directory, path) as tensors:
            own_head = own_head_from(tensors, config, head, path)
    with open_tensors(directory, path) as tensors:
        config, params, notes = task_params_from(
            tensors, config, head, path, architecture=architecture, new_head=new, seed=seed, pooler=not custom_head,
            tied=hf_config.get("tie_word_embeddings", True))
    if own_head is not None:
        params["head"] = own_head
    tokenizer, suspicions = _tokenizer(directory, path, config)
    return LoadedTask(config, params, tokenizer, hf_config, notes + suspicions, kinds[head.kind], head, labels)


def _tokenizer(directory: Path, path: str, config: EncoderConfig) -> "tuple[PreTrainedTokenizerFast, list[str]]":
    tokenizer, suspicions = load_tokenizer(directory, path, config.total_vocab)
    tokenizer.model_input_names = input_names(tokenizer, config.token_types)
    if tokenizer.pad_token_id != config.pad_id:
        suspicions.append(f"{path}: the tokenizer pads with id {tokenizer.pad_token_id}, "
                          f"config.json says {config.pad_id}")
    return tokenizer, suspicions


def _read_config(directory: Path, source: str) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise UserError(f"{source} is not a model: it has no config.json")
    return read_object(file, source)
