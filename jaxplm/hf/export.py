"""Our parameters → a model directory that stock transformers loads without a word."""

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
from jaxplm.hf.names import MASKED_LM, Slot, is_extension, is_pair_head, is_pooler, leaf_of, slots, token_type_table
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
    """Write a masked language model's directory. It appears complete or not at all, in place of one of the same name.

    `AutoModelForMaskedLM` and `AutoTokenizer` load it with nothing missing, unexpected or warned about.
    The decoder is tied, so it is not stored a second time. transformers' masked LM has no pooler and
    warns of one in its file; ours lies beside it in pooler.safetensors, which stock transformers does
    not look at and `jaxplm.hf.load` takes up again, so that no weight of a checkpoint is lost on the way.
    The head of sentence pairs, which stands on the pooler, lies there too, by BERT's names: the two files
    together are what `BertForPreTraining` has.

    A model with exBERT's extension is for `jaxplm.load` alone: transformers refuses it by its model_type, and README.md
    says so. The base's tensors bear transformers' names all the same; the extension's lie in extension.safetensors.

    Args:
      directory: of the export.
      config, params: the model; leaves may be NumPy or (addressable) JAX arrays.
      tokenizer: transformers' fast tokenizer.
      hf_config: config.json of the checkpoint that training began with; {} for a model from scratch.
      dtype: float32, float16 or bfloat16, of the file.
      files: further text files by name, such as README.md.

    Raises:
      UserError: no space or no permission; values that float16 cannot hold.
    """
    described = config_to_hf(config, hf_config, tokenizer, architecture=MASKED_LM, dtype=dtype)
    tensors = model_tensors(config, params, described, MASKED_LM, dtype)
    return write_directory(directory, by_file(tensors), described, tokenizer, config, files or {})


def by_file(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """{file: {name: tensor}}: what transformers' class would not expect lies in files of its own."""
    files: dict[str, dict[str, np.ndarray]] = {WEIGHTS: {}, POOLER: {}, EXTENSION: {}}
    for name, tensor in tensors.items():
        files[POOLER if is_pooler(name) or is_pair_head(name) else EXTENSION if is_extension(name) else WEIGHTS][name] = tensor
    return files


def model_tensors(config: EncoderConfig, params: ParamTree, described: Mapping[str, Any], architecture: str,
                  dtype: str) -> dict[str, np.ndarray]:
    """transformers' canonical names and tensors, in `dtype`; `described` is the config.json that goes with them."""
    host = jax.tree.map(np.asarray, params)
    tensors = tensors_of(slots(config, host, architecture), host, dtype)
    if not config.token_types:  # transformers cannot do without the table: zeros compute the same
        zeros = np.zeros((described["type_vocab_size"], config.width), _DTYPES[dtype])
        tensors[token_type_table(config.model_type)] = zeros
    return tensors


def tensors_of(wanted: Iterable[Slot], params: ParamTree, dtype: str) -> dict[str, np.ndarray]:
    """{name: tensor in `dtype`} for each slot.

    Raises:
      UserError: values that `dtype` cannot hold.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(_DTYPES)}")
    tensors = {}
    for slot in wanted:
        tensor = slot.take(np.asarray(leaf_of(params, slot.path)))
        if not np.isfinite(tensor).all():
            raise ValueError(f"{slot.name} has values that are not finite")
        with np.errstate(over="ignore"):  # found and said below
            tensors[slot.name] = tensor.astype(_DTYPES[dtype], copy=False)
        if not np.isfinite(tensors[slot.name]).all():
            largest = float(np.abs(tensor).max())
            raise UserError(f"{dtype} cannot hold {slot.name}, which reaches {largest:.3g}: use float32")
    return tensors


def write_directory(directory: str | Path, weights: Mapping[str, Mapping[str, np.ndarray]], described: Mapping[str, Any],
                    tokenizer: Any, config: EncoderConfig, texts: Mapping[str, str]) -> Path:
    """Write a model directory that appears complete or not at all, in place of one of the same name.

    Args:
      weights: {file: {name: tensor}}; a file of no tensors is not written.
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
                raise OSError(errno.ENOSPC, "no space")  # before minutes of writing, not after them
            for name, tensors in weights.items():
                if tensors:
                    save_file(dict(tensors), staged / name, metadata={"format": "pt"})
            for name, text in contents.items():
                (staged / name).write_text(text, "utf-8")
            save_tokenizer(tokenizer, staged, config.max_positions)
            for file in staged.iterdir():
                file.chmod(staged.stat().st_mode & 0o666)  # safetensors lets the owner alone read
    except (OSError, SafetensorError) as error:
        _explain(error, target, need)
        raise
    return target


def _explain(error: OSError | SafetensorError, target: Path, need: int) -> None:
    """Raise the user's error that `error` is, if it is one. safetensors has the number in its text only."""
    number = getattr(error, "errno", None)
    if number in _FULL or any(f"os error {code}" in str(error) for code in _FULL):
        raise UserError(f"no disk space for the export {target}: it needs {(need + _SMALL_FILES) / 2**20:,.0f} MiB") from None
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        raise UserError(f"cannot write the export {target}: {os.strerror(number)}") from None
