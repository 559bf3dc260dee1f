"""The outside format: models and tokenizers of transformers, in and out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxplm.errors import UserError
from jaxplm.hf.config import config_from_hf
from jaxplm.hf.export import save
from jaxplm.hf.source import resolve
from jaxplm.hf.tensors import open_tensors
from jaxplm.hf.tokenizer import load_tokenizer
from jaxplm.hf.weights import params_from
from jaxplm.nn import EncoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Loaded", "load", "load_tokenizer", "resolve", "save"]


@dataclass(frozen=True)
class Loaded:
    """A model as it was found."""

    config: EncoderConfig
    params: dict[str, Any]  # nested dicts of float32 NumPy arrays, vocabulary padded with zeros
    tokenizer: "PreTrainedTokenizerFast"
    hf_config: dict[str, Any]  # config.json as it stands, for the export
    notes: list[str]  # one line each: what the user should know


def load(path: str, *, seed: int = 0) -> Loaded:
    """Load a BERT, RoBERTa, XLM-RoBERTa or CamemBERT with its tokenizer.

    Args:
      path: see `resolve`.
      seed: of the MLM head's random weights, if the checkpoint has none.

    Raises:
      UserError: nothing there, a pickle, an unsupported architecture, weights that do not fit
        config.json (every one of them named), or a tokenizer of another model.
    """
    directory = resolve(path)
    hf_config = _read_config(directory, path)
    config = config_from_hf(hf_config, path)
    with open_tensors(directory, path) as tensors:
        config, params, notes = params_from(
            tensors, config, path, tied=hf_config.get("tie_word_embeddings", True), seed=seed)
    tokenizer, suspicions = load_tokenizer(directory, path, config.vocab_size)
    if tokenizer.pad_token_id != config.pad_id:
        suspicions.append(f"{path}: the tokenizer pads with id {tokenizer.pad_token_id}, "
                          f"config.json says {config.pad_id}")
    return Loaded(config, params, tokenizer, hf_config, notes + suspicions)


def _read_config(directory: Path, source: str) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise UserError(f"{source} is not a model: it has no config.json")
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{source}: config.json is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{source}: config.json does not hold an object")
    return content
