"""Find a model: a directory, `builtin:<name>`, or an id on the Hugging Face hub."""

import difflib
import errno
import importlib.resources
import re
from pathlib import Path

from jaxplm.errors import UserError
from jaxplm.hf.tensors import PICKLE, convert_command

BUILTIN = "builtin:"
_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$", re.ASCII)
_HUB_SECONDS = 5.0  # enough for a slow connection; a machine without one reports it soon


def resolve(path: str) -> Path:
    """Return the local directory of a model or a tokenizer.

    Args:
      path: a directory, `builtin:<name>`, or a hub id such as `roberta-base` or `klue/roberta-base`. A directory takes
        precedence over a hub id of the same name. Of a hub repository, only the safetensors, json and txt files of its top
        level are downloaded (or read from the hub's cache).

    Raises:
      UserError: nothing is there, or the hub cannot be reached and its cache has no copy.
    """
    if not path:
        raise UserError("no model path given")
    if path.startswith(BUILTIN):
        return _builtin(path.removeprefix(BUILTIN))
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    if local.exists():
        raise UserError(f"{path} is a file; a model is a directory: try {local.parent}")
    if not _HUB_ID.match(path) or path.startswith("."):
        raise UserError(f"no directory {path}{_near(local)}")
    return _from_hub(path, local)


def _builtin(name: str) -> Path:
    root = importlib.resources.files("jaxplm") / "builtin"
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if name not in names:
        there_is = ", ".join(names) or "none in this installation"
        raise UserError(f"no built-in model {name!r}; there is: {there_is}")
    return Path(str(root / name))


def _near(local: Path) -> str:
    """Return "; did you mean X?" if a directory beside the missing one has a similar name."""
    parent = local.parent
    if not parent.is_dir():
        return f" ({parent} does not exist either)"
    siblings = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(local.name, siblings, n=1)
    return f"; did you mean {parent / close[0]}?" if close else ""


def _from_hub(name: str, local: Path) -> Path:
    """Download what is needed of a hub repository, or find it in the cache."""
    # Imported here because most runs are local, and importing the client takes time.
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    files: list[str] | None = None
    try:
        # A separate request, because snapshot_download has no limit on the time that it waits.
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(name, timeout=_HUB_SECONDS)
            files = [entry.rfilename for entry in info.siblings or []]
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"neither a directory nor a model on the hub: {name}{_near(local)}") from None
    except Exception:  # noqa: BLE001 - the client's HTTP library, and with it the exceptions, changes between versions
        files = None  # no network: a copy in the cache is enough
    if files is not None and PICKLE in files and not any(file.endswith(".safetensors") for file in files):
        copy = local.name
        raise UserError(f"{name} has its weights in a pickle only, which is never opened because it can run "
                        f"code; convert a copy and give its path: hf download {name} --local-dir {copy} "
                        f"&& {convert_command(copy)}")
    try:
        return Path(snapshot_download(
            name, etag_timeout=_HUB_SECONDS, local_files_only=files is None,
            allow_patterns=["*.safetensors", "*.json", "*.txt"],
            ignore_patterns=["*/*"],  # onnx/, original/: other formats of the same weights
        ))
    except GatedRepoError:
        raise UserError(f"{name} is gated: accept its terms on the hub, then `hf auth login`") from None
    except Exception as error:  # noqa: BLE001 - as above
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"no disk space for {name} in the hub's cache {constants.HF_HUB_CACHE}") from None
        raise UserError(f"no directory {name}{_near(local)}, and the hub, which may have a model of that name, cannot be"
                        " reached") from None
