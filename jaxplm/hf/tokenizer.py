"""Fast tokenizers, in and out: what a directory's is, and an export that stock transformers reads alike."""

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
_UNREACHABLE_SHARE = 0.1  # real vocabularies stay below 0.02; the wrong normalizer gives 0.2 and more


def _read(directory: Path) -> Any:
    """What stock transformers reads from a directory.

    Imported at the first use, since that takes seconds (it pulls in PyTorch where there is one), and a
    wrong field on the command line should not have to wait for it. Where there is none, transformers
    advises to install it, which nobody here needs to hear.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(_is_news)
    try:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not that transformers has no model for our own type: it is asked for the tokenizer alone."""
    return EXTENDED not in record.getMessage()


def load_tokenizer(directory: Path, source: str,
                   vocab_size: int | None = None) -> "tuple[PreTrainedTokenizerFast, list[str]]":
    """The fast tokenizer of a directory (tokenizer.json, or the classic vocab.txt / vocab.json + merges.txt).

    It gives the ids that stock `AutoTokenizer` gives. Truncation and padding that a file brings along are
    switched off: they are for the caller of one text, and would cut a corpus without a word.

    Args:
      directory: holds the files.
      source: how messages call it.
      vocab_size: rows of the model's word table, to check the ids against.

    Returns:
      The tokenizer, and a line for everything about it that looks like a mistake.

    Raises:
      UserError: no readable fast tokenizer, no cls, sep, pad or mask token, or ids past the table.
    """
    try:
        tokenizer = _read(directory)
    except Exception as error:  # noqa: BLE001 - it raises whatever the first failing reader raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{source}: no readable tokenizer ({reason})") from None
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise UserError(f"{source}: {kind} is not a fast tokenizer, one that has a tokenizer.json")
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
            notes.append(f"{source}: tokenizer_config.json overrules the {' and '.join(changed)} of "
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
    """Share of a WordPiece vocabulary that its own normalizer makes impossible to match; 0 for other models.

    A cased or Korean vocabulary under a lower-casing, accent-stripping normalizer (the classic default)
    is the case in mind: capitals vanish, and every Hangul syllable is taken apart into letters.
    """
    backend = tokenizer.backend_tokenizer
    if type(backend.model).__name__ != "WordPiece" or backend.normalizer is None:
        return 0.0
    special = set(tokenizer.all_special_tokens)
    tokens = backend.get_vocab(with_added_tokens=False)
    words = [token.removeprefix("##") for token in tokens if token not in special]
    # Chinese characters are padded with spaces by the normalizer, which keeps them reachable: hence strip.
    lost = sum(backend.normalizer.normalize_str(word).strip() != word for word in words)
    return lost / max(1, len(words))


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", directory: Path, max_positions: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and the classic vocabulary files into `directory`.

    Stock `AutoTokenizer` rebuilds some tokenizers from their class and a few options and ignores the
    rest of tokenizer.json. So the files are read back, and where that gives another tokenizer the class
    is replaced by the one that takes tokenizer.json as it stands. config.json must be there already: it
    has a say in the choice of the class.
    """
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding  # left over from calls; not the tokenizer's
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
    for key in ("is_local", "local_files_only", "name_or_path"):  # of the place that it was loaded from
        settings.pop(key, None)
    if settings.get("tokenizer_class") == "TokenizersBackend":  # version 5's name for what every version knows as
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
            raise RuntimeError(f"transformers reads another tokenizer from {directory} than was written")


def _save_classic_files(backend: Tokenizer, directory: Path) -> None:
    """vocab.txt or vocab.json + merges.txt, for readers that know no tokenizer.json."""
    kind = type(backend.model).__name__
    ids = sorted(backend.get_vocab(with_added_tokens=False).values())
    # vocab.txt numbers its lines, so it cannot hold a vocabulary with gaps. Unigram models have no
    # classic file short of the sentencepiece one.
    if kind == "BPE" or (kind == "WordPiece" and ids == list(range(len(ids)))):
        backend.model.save(str(directory))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
