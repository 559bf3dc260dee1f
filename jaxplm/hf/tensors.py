"""Read the tensors of a checkpoint from safetensors, whole or in shards. Nothing here depends on what they mean."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxplm.errors import UserError
from jaxplm.hf.config_fields import shown
from jaxplm.hf.json_file import read_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
POOLER = "pooler.safetensors"  # see jaxplm.hf.export
EXTENSION = "extension.safetensors"  # exBERT's, by our own names; the base is in model.safetensors
HEAD = "head.safetensors"  # see jaxplm.hf.task_export
_FLOATS = ("F16", "BF16", "F32", "F64")
_CONVERT = (
    "import glob, sys, torch; from safetensors.torch import save_file; d = sys.argv[1]; "
    "w = {k: v.clone().contiguous() for f in glob.glob(d + '/pytorch_model*.bin') "
    "for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}; "
    "save_file(w, d + '/model.safetensors', metadata={'format': 'pt'})"
)


class Tensors:
    """The tensors of a checkpoint by name. Each is read when it is asked for, so memory holds one at a time."""

    def __init__(self, files: Mapping[str, Any], source: str) -> None:
        self._files = files  # tensor name → open safetensors file
        self._source = source

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading its values."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def is_float(self, name: str) -> bool:
        """Return whether a tensor is stored in 16, 32 or 64-bit floating point, not quantized to integers or 8 bits."""
        return self._files[name].get_slice(name).get_dtype() in _FLOATS

    def read(self, name: str) -> np.ndarray:
        """Return a tensor in its stored dtype (bfloat16 as `ml_dtypes.bfloat16`).

        Raises:
          UserError: it cannot be read, or has values that are not finite.
        """
        try:
            tensor = self._files[name].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self._source}: {name} cannot be read ({error}): copy the damaged file again") from None
        if not np.isfinite(tensor).all():
            raise UserError(f"{self._source}: {name} has values that are not finite: damaged")
        return tensor


@contextmanager
def open_tensors(directory: Path, source: str) -> Iterator[Tensors]:
    """Open the weights in `directory`; `source` is its name in messages.

    Raises:
      UserError: no safetensors (the message has the command that converts a pickle), a shard is missing or lacks a tensor
        that the index lists, or a file is damaged.
    """
    with ExitStack() as stack:
        if (directory / WEIGHTS).is_file():
            files = _tensors_of(directory / WEIGHTS, stack, source)
        elif (directory / INDEX).is_file():
            files = _shards(directory, stack, source)
        else:
            raise UserError(_no_weights(directory, source))
        for beside in (POOLER, EXTENSION):
            if (directory / beside).is_file():
                files = _tensors_of(directory / beside, stack, source) | files
        yield Tensors(files, source)


@contextmanager
def open_head(directory: Path, source: str) -> Iterator[Tensors]:
    """Open the file beside an encoder's weights with a head that transformers has no class for.

    Raises:
      UserError: the file is missing or damaged.
    """
    if not (directory / HEAD).is_file():
        raise UserError(f"{source} has no {HEAD}, although it has jaxplm.json; write the export again")
    with ExitStack() as stack:
        yield Tensors(_tensors_of(directory / HEAD, stack, source), source)


def _tensors_of(path: Path, stack: ExitStack, source: str) -> dict[str, Any]:
    try:
        file = stack.enter_context(safe_open(path, framework="np"))
    except (SafetensorError, OSError) as error:
        with path.open("rb") as start:
            if start.read(40).startswith(b"version https://git-lfs"):
                raise UserError(f"{source}: {path.name} is a git-lfs pointer: run `git lfs pull`") from None
        raise UserError(f"{source}: {path.name} is damaged ({_short(error)}): copy it again") from None
    return dict.fromkeys(file.keys(), file)


def _shards(directory: Path, stack: ExitStack, source: str) -> dict[str, Any]:
    placed = read_object(directory / INDEX, source, "index of safetensors files").get("weight_map")
    if not (isinstance(placed, dict) and placed and all(isinstance(name, str) and name for name in placed.values())):
        raise UserError(f"{source}: {INDEX} is not an index of safetensors files")
    names = sorted(set(placed.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise UserError(f"{source}: {INDEX} points outside of its directory: {shown(outside[0])}")
    if absent := [name for name in names if not os.path.isfile(directory / name)]:  # False where there can be no such name
        raise UserError(f"{source}: {len(absent)} of {len(names)} shards are missing: {listed(absent)}")
    shards = {name: _tensors_of(directory / name, stack, source) for name in names}
    if lost := [tensor for tensor, name in placed.items() if tensor not in shards[name]]:
        raise UserError(f"{source}: shards lack tensors that {INDEX} lists: {listed(lost)}")
    return {tensor: shards[name][tensor] for tensor, name in placed.items()}


def _no_weights(directory: Path, source: str) -> str:
    """Return the message for a directory without safetensors."""
    if any(directory.glob("pytorch_model*.bin")):
        return (f"{source} has its weights in a pickle only, which is never opened because it can run code; "
                f"convert it once: {convert_command(directory)}")
    others = [name for name in ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "pytorch_model.pt")
              if (directory / name).exists()]
    if others:
        return f"{source} has only {others[0]}; save it as safetensors with the library that wrote it"
    if stray := sorted(directory.glob("*.safetensors")):
        return f"{source} has no {WEIGHTS}; rename {stray[0].name} to that if it is the model"
    return f"{source} has no weights: no {WEIGHTS} and no {INDEX}"


def convert_command(directory: str | Path) -> str:
    """Return the shell command that converts pickled weights to safetensors with PyTorch's safe reader."""
    return f'python -c "{_CONVERT}" {shlex.quote(str(directory))}'


def listed(names: list[str], most: int = 6) -> str:
    """Return the first few names and the number of the others: "a, b and 12 more"."""
    more = len(names) - most
    return ", ".join(_short(name) for name in names[:most]) + (f" and {more} more" if more > 0 else "")


def _short(what: object) -> str:
    """Return the start of a text: a damaged file can have names of any length."""
    text = str(what)
    return text if len(text) <= 160 else f"{text[:159]}…"
