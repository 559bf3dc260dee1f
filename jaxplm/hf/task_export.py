"""Write a model with the head of a task as a directory that stock transformers loads as far as it can."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxplm.hf.config import config_to_hf
from jaxplm.hf.export import by_file, model_tensors, tensors_of, write_directory
from jaxplm.hf.heads import HEAD_FILE, head_to_hf, head_to_json, hf_class_of
from jaxplm.hf.loading import LoadedTask
from jaxplm.hf.names import bare, own_specs, pooler_specs
from jaxplm.hf.tensors import HEAD, WEIGHTS
from jaxplm.nn import EncoderConfig, ParamTree


def save_task_model(directory: str | Path, model: LoadedTask, params: ParamTree, labels: Sequence[str],
                    files: Mapping[str, str] | None = None, dtype: str = "float32") -> Path:
    """Write the directory of a fine-tuned model, complete or not at all; a directory of the same name is replaced.

    - A head that transformers has a class for: `AutoModelForSequenceClassification` (`...TokenClassification`,
      `...QuestionAnswering`) loads it with nothing missing and nothing unexpected, without a warning, and gives the same
      logits.
    - Any other head: it is in head.safetensors, by our own names, described by jaxplm.json. The encoder is a base model
      for `AutoModel`. The same holds for every head on an encoder with exBERT's extension, which transformers does not
      load at all.

    `jaxplm.load` reads all of them.

    Args:
      model: what was trained; its head's `dropout` goes into the export; None means the encoder's.
      params: of the `TaskModel` after training; leaves may be NumPy or (addressable) JAX arrays.
      labels: C names in the order of the classes; none, or the column's name, for a kind whose outputs have no names.
      files, dtype: as in `export.save`.

    Raises:
      UserError: no space or no permission; values that float16 cannot hold.
    """
    config, kind, head, tokenizer = model.config, model.kind, model.head, model.tokenizer
    architecture = hf_class_of(kind, head, config)
    described = config_to_hf(config, model.hf_config, tokenizer, architecture=architecture, dtype=dtype,
                             task=head_to_hf(kind, head, labels) if architecture else None)
    tensors = model_tensors(config, params, described, architecture, dtype)
    if architecture:
        return write_directory(directory, {WEIGHTS: tensors}, described, tokenizer, config, files or {})
    weights = by_file(tensors, config)
    base = {bare(name, config.model_type): tensor for name, tensor in weights[WEIGHTS].items()} | idle_pooler(config, dtype)
    weights |= {WEIGHTS: base, HEAD: tensors_of(own_specs(params, "head"), params, dtype)}
    own = head_to_json(kind, head, labels)
    return write_directory(directory, weights, described, tokenizer, config, {HEAD_FILE: own, **(files or {})})


def idle_pooler(config: EncoderConfig, dtype: str) -> dict[str, np.ndarray]:
    """Return an identity as the pooler, which transformers' base model needs: its output is then tanh of [CLS], not noise."""
    pooler = {"dense": {"kernel": np.eye(config.width, dtype=np.float32), "bias": np.zeros(config.width, np.float32)}}
    tensors = tensors_of(pooler_specs(config, pooler, "dense"), pooler, dtype)
    return {bare(name, config.model_type): tensor for name, tensor in tensors.items()}
