"""Complete a trained tokenizer with special tokens and write the files from which transformers reads it."""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, processors

from jaxplm.hf.families import family_of

# The model family whose special tokens a kind of tokenizer has; `jaxplm.hf.families` has the tokens and their ids.
FAMILIES = {"wordpiece": "bert", "bpe": "roberta", "unigram": "bert"}
_CLASSES = {"wordpiece": "BertTokenizer", "bpe": "RobertaTokenizer", "unigram": "PreTrainedTokenizerFast"}


def special_tokens(kind: str) -> tuple[str, ...]:
    """Return the special tokens of a kind of tokenizer in the order of their ids, which are 0, 1, ..."""
    return tuple(family_of(FAMILIES[kind]).special_tokens.values())


def add_special_tokens(tokenizer: Tokenizer, kind: str) -> None:
    """Give a trained tokenizer its special tokens, its form of a text and of a pair, and its decoder."""
    special = special_tokens(kind)
    # The mask includes the space before it where that space is part of the token that the mask stands for.
    includes_space = {token: kind != "wordpiece" and "mask" in token.lower() for token in special}
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True, lstrip=includes_space[token]) for token in special]
    )
    if kind == "bpe":
        cls, sep = ((special[i], i) for i in (0, 2))  # one token type, for pairs too
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        return
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    decoder = decoders.WordPiece() if kind == "wordpiece" else decoders.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoder  # pyright: ignore[reportAttributeAccessIssue]


def write_tokenizer(tokenizer: Tokenizer, kind: str, cased: bool, max_positions: int, directory: Path) -> None:
    """Write the files from which `AutoTokenizer` reads the same tokenizer.

    They are tokenizer.json, tokenizer_config.json and the classic files of the kind.

    Args:
      tokenizer: complete, see `add_special_tokens`.
      kind: of its model.
      cased: False: it lower-cases.
      max_positions: tokens of a text at most (`model_max_length`).
      directory: replaced.
    """
    from transformers import AutoTokenizer  # takes seconds; see `hf.tokenizer`

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    if kind != "unigram":  # its classic file would be one of sentencepiece
        tokenizer.model.save(str(directory))
    family = family_of(FAMILIES[kind])
    settings: dict[str, Any] = {f"{role}_token": token for role, token in family.special_tokens.items()}
    settings |= {f"{alias}_token": family.special_tokens[role] for alias, role in family.role_aliases.items()}
    settings |= {
        "model_max_length": max_positions,
        "tokenizer_class": _CLASSES[kind],
        "clean_up_tokenization_spaces": False,
    }
    if kind == "wordpiece":
        settings |= {"do_lower_case": not cased, "strip_accents": False}
    if kind == "bpe":
        settings |= {"add_prefix_space": False}
    file = directory / "tokenizer_config.json"

    def write() -> None:
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")

    write()
    wanted = json.loads(tokenizer.to_str())
    # A class of transformers rebuilds normalizer and pre-tokenizer by its own rules. Where those differ from ours, the
    # class that takes tokenizer.json unchanged is named instead.
    read = json.loads(AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True).backend_tokenizer.to_str())
    if any(read[part] != wanted[part] for part in ("normalizer", "pre_tokenizer", "model", "decoder")):
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        for option in ("do_lower_case", "strip_accents", "add_prefix_space"):
            settings.pop(option, None)
    if settings["tokenizer_class"] == "PreTrainedTokenizerFast":  # it does not know the inputs of a model
        settings["model_input_names"] = [
            "input_ids",
            *(["token_type_ids"] if family.token_types > 1 else []),
            "attention_mask",
        ]
    write()
