"""Load fast tokenizers, and export them so that stock transformers reads the same tokenizer."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from jaxplm.data.corpus.unknown_words import mismatch
from jaxplm.errors import UserError
from jaxplm.hf.config import EXTENDED
from jaxplm.hf.config_fields import MOST_TOKENS, shown
from jaxplm.hf.frame import add_missing_frame
from jaxplm.hf.notes import Warned
from jaxplm.hf.tokenizer_faults import check_files, has_words, is_panic, no_files, why_unreadable

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

    It gives the same ids as stock `AutoTokenizer`, but always puts the cls and the sep token around texts. Truncation
    and padding that a file specifies are switched off: they are meant for single texts, and would truncate a corpus
    silently.

    Args:
      directory: holds the files.
      source: its name in messages.
      vocab_size: rows of the model's word table, to check the ids against.

    Returns:
      The tokenizer, and one line for everything about it that looks like a mistake.

    Raises:
      UserError: no readable fast tokenizer, or one without words; no cls, sep, pad or mask token; or ids beyond the
        word table.
    """
    check_files(directory, source)
    try:
        tokenizer = _read(directory)
        file = directory / "tokenizer.json"
        written = Tokenizer.from_file(str(file)) if file.is_file() else None
        if tokenizer.is_fast:
            _try_out(tokenizer.backend_tokenizer)
    except BaseException as error:  # noqa: BLE001 - the error is that of the first reader that fails
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise UserError(f"{source}: no readable tokenizer: {why_unreadable(error, directory)}") from None
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise UserError(f"{source}: {kind} is not a fast tokenizer, which has a tokenizer.json")
    if written is None and not has_words(tokenizer):
        raise UserError(f"{source}: no tokenizer: {no_files(type(tokenizer), directory)}")
    if not has_words(tokenizer):
        raise UserError(f"{source}: tokenizer.json has special tokens only: copy that of the checkpoint again")
    if absent := [name for name in _NEEDED if getattr(tokenizer, name) is None]:
        raise UserError(f"{source}: the tokenizer has no {', '.join(absent)}")
    largest, token = max((index, token) for token, index in tokenizer.get_vocab().items())
    if vocab_size is not None and largest >= vocab_size:
        raise UserError(f"{source}: the tokenizer does not belong to the model: its token {shown(token)} is "
                        f"number {largest}, the model has rows for {vocab_size}")
    if largest >= MOST_TOKENS:
        raise UserError(f"{source}: the tokenizer's token {shown(token)} is number {largest}; at most {MOST_TOKENS:,} tokens"
                        " are taken")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    notes = _suspicions(tokenizer, written, source)
    if add_missing_frame(tokenizer):
        notes.append(Warned(
            f"{source}: the tokenizer does not put {tokenizer.cls_token} and {tokenizer.sep_token} around texts, with which"
            " the model was trained: they are added in training, tasks and vectors, and in the tokenizer of the export"))
    if seen := mismatch(tokenizer):
        notes.append(Warned(
            f"{source}: the tokenizer does not fit its vocabulary, and many words are {tokenizer.unk_token}: {seen}"))
    return tokenizer, notes


def _try_out(backend: Tokenizer) -> None:
    """Encode a text with a character that no vocabulary has: some tokenizers fail there and not when they are read."""
    backend.no_truncation()
    backend.no_padding()
    for encoding in (backend.encode("a \U000f1234 한."), backend.encode("a", "b")):
        backend.decode(encoding.ids)
    if backend.normalizer is not None:
        backend.normalizer.normalize_str("a 한")


def _suspicions(tokenizer: "PreTrainedTokenizerFast", written: Tokenizer | None, source: str) -> list[str]:
    """Return notes about a tokenizer, of which `written` is what tokenizer.json holds."""
    notes = []
    if written is not None:
        theirs, ours = written, tokenizer.backend_tokenizer
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


def input_names(tokenizer: "PreTrainedTokenizerFast", token_types: int) -> list[str]:
    """Return the inputs that a model with so many rows of token types takes from a tokenizer.

    A tokenizer may give token types that the model has no row for: KLUE's RoBERTa has one row, and a BertTokenizer,
    which gives two types for pairs.
    """
    return [name for name in tokenizer.model_input_names if token_types > 1 or name != "token_type_ids"]


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", directory: Path, max_positions: int,
                   token_types: int = 2) -> None:
    """Write tokenizer.json, tokenizer_config.json and the classic vocabulary files into `directory`.

    Versions 4 (from 4.48) and 5 of transformers read the same tokenizer. Version 5 has the list `extra_special_tokens`,
    which version 4 cannot read; both read it as `additional_special_tokens`. The inputs of the model are named, because
    the two versions name different ones for tokenizers of no class of their own.

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
    longest = settings.get("model_max_length")
    settings["model_max_length"] = min(max_positions if longest is None else longest, max_positions)
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    settings["model_input_names"] = input_names(tokenizer, token_types)
    _write_json(settings_file, settings)
    _save_classic_files(backend, directory)

    expected = (wanted, sorted(tokenizer.all_special_tokens))

    def read_back() -> tuple[str, list[str]]:
        read = _read(directory)
        return read.backend_tokenizer.to_str(), sorted(read.all_special_tokens)

    if read_back() != expected:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        _write_json(settings_file, settings)
        if read_back() != expected:
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
