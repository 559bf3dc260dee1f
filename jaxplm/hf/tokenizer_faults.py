"""Why a tokenizer cannot be read from a directory: the cause that is seen in its files, and the remedy."""

import shlex
from pathlib import Path
from typing import Any

from jaxplm.errors import UserError
from jaxplm.hf.config_fields import Kind, shown, takes
from jaxplm.hf.json_file import read_object

_SETTINGS = "tokenizer_config.json"
_SMALL = (_SETTINGS, "special_tokens_map.json", "added_tokens.json")
_REASON = 200  # characters of another library's message
_WRITERS = "tokenizer.save_pretrained writes them; model.save_pretrained does not"
_NAMES = Kind("a list of names", list)


def check_files(directory: Path, source: str) -> None:
    """Raise UserError for a JSON file beside tokenizer.json that is damaged, or has settings that cannot be.

    They are read by transformers, too, whose messages name neither the file nor the setting.
    """
    contents = {name: read_object(directory / name, source) for name in _SMALL if (directory / name).is_file()}
    settings = contents.get(_SETTINGS, {})
    longest, names = settings.get("model_max_length"), settings.get("model_input_names", [])
    if longest is not None and (type(longest) not in (int, float) or not longest >= 1):
        raise UserError(f"{source}: {_SETTINGS}: model_max_length is {shown(longest)} and must be a number of tokens")
    if not takes(_NAMES, names) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{source}: {_SETTINGS}: model_input_names is {shown(names)} and must be a list of names")


def has_words(tokenizer: Any) -> bool:
    """Return whether a fast tokenizer has more than special tokens.

    transformers makes an empty one where its files are missing.
    """
    return len(tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)) > 0


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of Rust code in tokenizers or safetensors, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


def no_files(kind: type, directory: Path) -> str:
    """Return the end of the message for a tokenizer whose class did not find its files."""
    wanted = [name for name in getattr(kind, "vocab_files_names", {}).values() if name != "tokenizer.json"]
    known = ("vocab.txt", "vocab.json", "merges.txt", *wanted)
    there = " and ".join(sorted(file.name for file in directory.iterdir() if file.name in known))
    has = f"it has {there} only, which is not what {kind.__name__} reads" if there else "it has no vocabulary"
    files = " or ".join(["tokenizer.json", *([" with ".join(wanted)] if wanted else [])])
    return f"{has}; copy the checkpoint's {files} into {directory} ({_WRITERS})"


def why_unreadable(error: BaseException, directory: Path) -> str:
    """Return why transformers fails to read a tokenizer: the cause that its directory shows, with a remedy; else the error."""
    settings = read_object(directory / _SETTINGS, str(directory)) if (directory / _SETTINGS).is_file() else {}
    if (directory / "tokenizer.json").is_file():
        return f"{_reason(error)}; if tokenizer.json is damaged, copy it again"
    if code := _code(settings):
        return f"it comes as code ({code}), which is never run; {_remedy_for_code(directory)}"
    pieces = sorted(directory.glob("*.model"))
    if pieces:
        return (f"{pieces[0].name} alone is not read; make tokenizer.json of it once, where the package sentencepiece is"
                ' installed: python -c "import sys; from transformers import AutoTokenizer as A;'
                f' A.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])" {shlex.quote(str(directory))}')
    if not any((directory / name).is_file() for name in ("vocab.txt", "vocab.json")):
        return (f"the directory has no vocabulary; copy the checkpoint's tokenizer.json, or its vocab.txt or vocab.json with"
                f" merges.txt, into {directory} ({_WRITERS})")
    return _reason(error)


def _code(settings: dict[str, Any]) -> str:
    """Return the name of a tokenizer's class that is code of its own, or "" if there is none."""
    import transformers

    places = settings.get("auto_map")
    names = places.get("AutoTokenizer") if isinstance(places, dict) else places
    listed = [name for name in (names if isinstance(names, list) else [names]) if isinstance(name, str)]
    kind = settings.get("tokenizer_class")
    if listed:
        return shown(listed[0])
    return shown(kind) if isinstance(kind, str) and not hasattr(transformers, kind) else ""


def _remedy_for_code(directory: Path) -> str:
    """Return what to do about a tokenizer that comes as code, by what its vocabulary looks like."""
    vocabulary = directory / "vocab.txt"
    head = vocabulary.read_bytes()[: 2**22].decode("utf-8", "replace") if vocabulary.is_file() else ""
    if "\n##" in head:
        return ("vocab.txt has the ##pieces that BertTokenizer looks up: if the code does no more than that, set"
                f' "tokenizer_class": "BertTokenizer" in {_SETTINGS} and delete "auto_map" there')
    return ("what is read is a tokenizer.json with the ids of its vocabulary: docs/troubleshooting.md has the code that makes"
            " one of a SentencePiece model; else take a checkpoint that brings one")


def _reason(error: BaseException) -> str:
    """Return the first line of an error of another library, not too long."""
    text = " ".join((str(error).strip().split("\n")[0] or type(error).__name__).split())
    return text if len(text) <= _REASON else f"{text[: _REASON - 1]}…"
