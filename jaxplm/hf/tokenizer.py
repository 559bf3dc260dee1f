"""Load fast tokenizers, and export them so that stock transformers reads the same tokenizer."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from jaxplm.errors import UserError
from jaxplm.hf.config import EXTENDED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NEEDED = ("cls_token", "sep_token", "pad_token", "mask_token")
_UNREACHABLE_SHARE = 0.1  # vocabularies with their own normalizer stay below 0.02; a wrong normalizer gives 0.2 and more


def _read(directory: Path) -> Any:
    """Return the tokenizer that stock transformers reads from a directory.

    transformers is imported at the first use, because that takes seconds (it imports PyTorch if that is installed), and the
    message about a wrong field on the command line should not wait for it. Its advice to install PyTorch is switched off.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(_is_relevant)
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    finally:
        logger.removeFilter(_is_relevant)


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return False for the message that transformers has no model for our own type: only the tokenizer is loaded."""
    return EXTENDED not in record.getMessage()


def load_tokenizer(directory: Path, source: str,
                   vocab_size: int | None = None) -> "tuple[PreTrainedTokenizerFast, list[str]]":
    """Load the fast tokenizer of a directory (tokenizer.json, or the classic vocab.txt / vocab.json + merges.txt).

    It gives the same ids as stock `AutoTokenizer`. Truncation and padding that a file specifies are switched off: they are
    meant for single texts, and would truncate a corpus silently.

    Args:
      directory: holds the files.
      source: its name in messages.
      vocab_size: rows of the model's word table, to check the ids against.

    Returns:
      The tokenizer, and one line for everything about it that looks like a mistake.

    Raises:
      UserError: no readable fast tokenizer, no cls, sep, pad or mask token, or ids beyond the word table.
    """
    try:
        tokenizer = _read(directory)
    except Exception as error:  # noqa: BLE001 - the error is that of the first reader that fails
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{source}: no readable tokenizer ({reason})") from None
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise UserError(f"{source}: {kind} is not a fast tokenizer, which has a tokenizer.json")
    if absent := [name for name in _NEEDED if getattr(tokenizer, name) is None]:
        raise UserError(f"{source}: the tokenizer has no {', '.join(absent)}")
    largest, token = max((index, token) for token, index in tokenizer.get_vocab().items())
    if vocab_size is not None and largest >= vocab_size:
        raise UserError(f"{source}: the tokenizer does not belong to the model: its token {token!r} is "
                        f"number {largest}, the model has rows for {vocab_size}")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer, _suspicions(tokenizer, directory, source)


def _suspicions(tokenizer: "PreTrainedTokenizerFast", directory: Path, source: str) -> list[str]:
    notes = []
    file = directory / "tokenizer.json"
    if file.is_file():
        theirs, ours = Tokenizer.from_file(str(file)), tokenizer.backend_tokenizer
        parts = ("normalizer", "pre_tokenizer")
        changed = [part for part in parts if _state(theirs, part) != _state(ours, part)]
        if changed:
            notes.append(f"{source}: tokenizer_config.json overrides the {' and '.join(changed)} of "
                         "tokenizer.json, as in transformers")
    share = unreachable_share(tokenizer)
    if share > _UNREACHABLE_SHARE:
        notes.append(f"{source}: {share:.0%} of the vocabulary can never occur, because the tokenizer "
                     "lower-cases or strips accents before it looks words up: most likely "
                     'tokenizer_config.json needs "do_lower_case": false')
    return notes


def _state(tokenizer: Tokenizer, part: str) -> str:
    step = getattr(tokenizer, part)
    return "" if step is None else repr(step.__getstate__())


def unreachable_share(tokenizer: "PreTrainedTokenizerFast") -> float:
    """Return the share of a WordPiece vocabulary that its normalizer makes impossible to match; 0 for other models.

    The usual cause is a cased or Korean vocabulary with a normalizer that lower-cases and strips accents (the classic
    default): it removes capitals, and splits every Hangul syllable into letters.
    """
    backend = tokenizer.backend_tokenizer
    if type(backend.model).__name__ != "WordPiece" or backend.normalizer is None:
        return 0.0
    special = set(tokenizer.all_special_tokens)
    tokens = backend.get_vocab(with_added_tokens=False)
    words = [token.removeprefix("##") for token in tokens if token not in special]
    # The normalizer puts spaces around Chinese characters, which does not make them unreachable: hence strip.
    lost = sum(backend.normalizer.normalize_str(word).strip() != word for word in words)
    return lost / max(1, len(words))


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", directory: Path, max_positions: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and the classic vocabulary files into `directory`.

    Stock `AutoTokenizer` rebuilds some tokenizers from their class and a few options, and ignores the rest of
    tokenizer.json. The files are therefore read back. If that gives another tokenizer, the class is replaced by the one
    that reads tokenizer.json unchanged. config.json must exist already, because it influences the choice of the class.
    """
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding  # set by calls, not part of the tokenizer
    backend.no_truncation()
    backend.no_padding()
    try:
        tokenizer.save_pretrained(directory)
        wanted = backend.to_str()
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
    settings_file = directory / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text("utf-8"))
    for key in ("is_local", "local_files_only", "name_or_path"):  # about where it was loaded from
        settings.pop(key, None)
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the name in version 5; other versions know only
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_max_length"] = min(settings.get("model_max_length", max_positions), max_positions)
    _write_json(settings_file, settings)
    _save_classic_files(backend, directory)

    def read_back() -> str:
        return _read(directory).backend_tokenizer.to_str()

    if read_back() != wanted:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings["model_input_names"] = list(tokenizer.model_input_names)
        _write_json(settings_file, settings)
        if read_back() != wanted:
            raise RuntimeError(f"transformers reads a tokenizer from {directory} that differs from the one that was written")


def _save_classic_files(backend: Tokenizer, directory: Path) -> None:
    """Write vocab.txt, or vocab.json and merges.txt, for readers that do not know tokenizer.json."""
    kind = type(backend.model).__name__
    ids = sorted(backend.get_vocab(with_added_tokens=False).values())
    # An id is a line number of vocab.txt, so it cannot hold a vocabulary with gaps. The only classic file of Unigram
    # models is sentencepiece's.
    if kind == "BPE" or (kind == "WordPiece" and ids == list(range(len(ids)))):
        backend.model.save(str(directory))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
