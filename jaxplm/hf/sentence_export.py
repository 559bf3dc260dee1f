"""Write an encoder and its pooling as a directory for sentence-transformers and stock AutoModel."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxplm.hf.config import config_to_hf
from jaxplm.hf.export import model_tensors, tensors_of, write_directory
from jaxplm.hf.names import ENCODER, bare, pooler_specs
from jaxplm.hf.task_export import idle_pooler
from jaxplm.hf.tensors import WEIGHTS
from jaxplm.nn import EncoderConfig, ParamTree

# The module names that every version of sentence-transformers since 2 accepts.
_MODULES = ("Transformer", "Pooling", "Normalize")
_MODES = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}


def save_sentence_encoder(directory: str | Path, config: EncoderConfig, params: ParamTree, tokenizer: Any, hf_config: Mapping[str, Any],
                          *, pooling: str, normalize: bool, seq_len: int, files: Mapping[str, str] | None = None) -> Path:
    """Write a directory that `SentenceTransformer(directory)` loads, where it gives the same vectors.

    Args:
      config, params: the encoder. Other parts of `params` are left out, except for the checkpoint's pooler.
      tokenizer: transformers' fast tokenizer.
      hf_config: config.json of the checkpoint.
      pooling: cls, mean or max.
      normalize: whether vectors are scaled to length 1.
      seq_len: longer texts are cut after this many tokens.
      files: further text files by name.

    Raises:
      UserError: no space or no permission.
    """
    described = config_to_hf(config, hf_config, tokenizer, architecture=ENCODER, dtype="float32")
    tensors = {bare(name, config.model_type): tensor
               for name, tensor in model_tensors(config, params, described, ENCODER, "float32").items()}
    if config.pooler:
        host = {"pooler": jax.tree.map(np.asarray, params["pooler"])}
        pooler = tensors_of(pooler_specs(config, host, "pooler"), host, "float32")
        tensors |= {bare(name, config.model_type): tensor for name, tensor in pooler.items()}
    else:
        tensors |= idle_pooler(config, "float32")
    chain = _MODULES[: 2 + normalize]
    paths = ["" if i == 0 else f"{i}_{name}" for i, name in enumerate(chain)]
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
               for i, (name, path) in enumerate(zip(chain, paths, strict=True))]
    texts = {
        "modules.json": _json(modules),
        "sentence_bert_config.json": _json({"max_seq_length": seq_len, "do_lower_case": False}),
        "config_sentence_transformers.json": _json({"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}),
    }
    target = write_directory(directory, {WEIGHTS: tensors}, described, tokenizer, config, texts | dict(files or {}))
    for path in paths[1:]:
        (target / path).mkdir(exist_ok=True)
    modes = {f"pooling_mode_{mode}": how == pooling for how, mode in _MODES.items()}
    content = {"word_embedding_dimension": config.width, **modes, "include_prompt": True}
    (target / paths[1] / "config.json").write_text(_json(content), "utf-8")
    return target


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
