"""Write our parameters as a model directory that stock transformers loads without a warning."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxplm.data import atomic
from jaxplm.errors import UserError
from jaxplm.hf.config import config_to_hf
from jaxplm.hf.families import family_of
from jaxplm.hf.names import MASKED_LM, TensorSpec, is_extension, is_pair_head, is_pooler, leaf_of, tensor_specs, token_type_table
from jaxplm.hf.tensors import EXTENSION, POOLER, WEIGHTS
from jaxplm.hf.tokenizer import save_tokenizer
from jaxplm.nn import EncoderConfig, ParamTree

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# What the card of every model with an extension says at its end.
EXTENDED_CARD = """## Loading

This encoder has exBERT's extension (Tai et al. 2020): new tokens with rows of their own, and a gated block beside every
block of the base. `jaxplm.load` loads it. Stock transformers has no class for it and refuses it; `AutoTokenizer` loads
its tokenizer.
"""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALL_FILES = 64 * 2**20  # bytes; generous for config.json and the largest tokenizer


def save(directory: str | Path, config: EncoderConfig, params: ParamTree, tokenizer: Any,
         hf_config: Mapping[str, Any], dtype: str = "float32", files: Mapping[str, str] | None = None) -> Path:
    """Write the directory of a masked language model, complete or not at all; a directory of the same name is replaced.

    `AutoModelForMaskedLM` and `AutoTokenizer` load it with nothing missing and nothing unexpected, and without a warning.

    - The decoder is tied to the word table, so it is not stored.
    - The pooler and the head that classifies pairs are in pooler.safetensors. transformers' masked LM has neither, and would
      warn about them in its own file. `jaxplm.hf.load` reads both files, so no weight of a checkpoint is lost. The two files
      together hold what `BertForPreTraining` has.
    - A model with exBERT's extension can be loaded by `jaxplm.load` only. transformers refuses it because of its model_type,
      and README.md says so. Tensors of the base have transformers' names; those of the extension are in
      extension.safetensors.

    Args:
      directory: of the export.
      config, params: the model; leaves may be NumPy or (addressable) JAX arrays.
      tokenizer: transformers' fast tokenizer.
      hf_config: config.json of the checkpoint that training started from; {} for a model from scratch.
      dtype: of the file: float32, float16 or bfloat16.
      files: further text files by name, such as README.md.

    Raises:
      UserError: no space or no permission; values that float16 cannot hold.
    """
    described = config_to_hf(config, hf_config, tokenizer, architecture=MASKED_LM, dtype=dtype)
    tensors = model_tensors(config, params, described, MASKED_LM, dtype)
    return write_directory(directory, by_file(tensors, config), described, tokenizer, config, files or {})


def by_file(tensors: Mapping[str, np.ndarray], config: EncoderConfig) -> dict[str, dict[str, np.ndarray]]:
    """Return {file: {name: tensor}}; what transformers' class would not expect gets files of its own."""
    family = family_of(config.model_type)
    files: dict[str, dict[str, np.ndarray]] = {WEIGHTS: {}, POOLER: {}, EXTENSION: {}}
    for name, tensor in tensors.items():
        beside = is_pooler(name, family) or is_pair_head(name, family)
        files[POOLER if beside else EXTENSION if is_extension(name) else WEIGHTS][name] = tensor
    return files


def model_tensors(config: EncoderConfig, params: ParamTree, described: Mapping[str, Any], architecture: str,
                  dtype: str) -> dict[str, np.ndarray]:
    """Return {canonical name: tensor} in `dtype`; `described` is the config.json that goes with the tensors."""
    host = jax.tree.map(np.asarray, params)
    tensors = tensors_of(tensor_specs(config, host, architecture), host, dtype)
    if not config.token_types:  # transformers needs the table; zeros compute the same
        zeros = np.zeros((described["type_vocab_size"], config.width), _DTYPES[dtype])
        tensors[token_type_table(config.model_type)] = zeros
    return tensors


def tensors_of(wanted: Iterable[TensorSpec], params: ParamTree, dtype: str) -> dict[str, np.ndarray]:
    """Return {name: tensor in `dtype`} for each spec.

    Raises:
      UserError: values that `dtype` cannot hold.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
    tensors = {}
    for spec in wanted:
        tensor = spec.from_leaf(np.asarray(leaf_of(params, spec.path)))
        if not np.isfinite(tensor).all():
            raise ValueError(f"{spec.name} has values that are not finite")
        with np.errstate(over="ignore"):  # reported below
            tensors[spec.name] = tensor.astype(_DTYPES[dtype], copy=False)
        if not np.isfinite(tensors[spec.name]).all():
            largest = float(np.abs(tensor).max())
            raise UserError(f"{dtype} cannot hold {spec.name}, which reaches {largest:.3g}: use float32")
    return tensors


def write_directory(directory: str | Path, weights: Mapping[str, Mapping[str, np.ndarray]], described: Mapping[str, Any],
                    tokenizer: Any, config: EncoderConfig, texts: Mapping[str, str]) -> Path:
    """Write a model directory, complete or not at all; a directory of the same name is replaced.

    Args:
      weights: {file: {name: tensor}}; a file without tensors is not written.
      described: config.json.
      texts: further text files by name.

    Raises:
      UserError: no space or no permission.
    """
    target = Path(directory)
    need = sum(tensor.nbytes for tensors in weights.values() for tensor in tensors.values())
    contents = {"config.json": json.dumps(described, indent=2, ensure_ascii=False) + "\n", **texts}
    if config.extension:
        contents["README.md"] = f"{contents.get('README.md', '').rstrip()}\n\n{EXTENDED_CARD}".lstrip()
    try:
        with atomic.new_directory(target) as staged:
            if shutil.disk_usage(staged).free < need + _SMALL_FILES:
                raise OSError(errno.ENOSPC, "no space")  # checked first: writing takes minutes
            for name, tensors in weights.items():
                if tensors:
                    save_file(dict(tensors), staged / name, metadata={"format": "pt"})
            for name, text in contents.items():
                (staged / name).write_text(text, "utf-8")
            save_tokenizer(tokenizer, staged, config.max_positions, config.token_types)
            for file in staged.iterdir():
                file.chmod(staged.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:
        _explain(error, target, need)
        raise
    return target


def _explain(error: OSError | SafetensorError, target: Path, need: int) -> None:
    """Raise UserError if the error is the user's to solve. safetensors gives the error number in its text only."""
    number = getattr(error, "errno", None)
    if number in _FULL or any(f"os error {code}" in str(error) for code in _FULL):
        raise UserError(f"no disk space for the export {target}: it needs {(need + _SMALL_FILES) / 2**20:,.0f} MiB") from None
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        raise UserError(f"cannot write the export {target}: {os.strerror(number)}") from None
