"""Why a tokenizer does not know the words of a text: what is seen in its vocabulary and normalizer, and the remedy."""

from collections.abc import Iterable
from typing import Any, NamedTuple

# A piece that opens a word begins with this sign in the vocabularies of SentencePiece and of byte-level BPE.
_SIGNS = {"▁": "SentencePiece", "Ġ": "byte-level BPE"}
_LISTED = 0.1  # share of entries with such a sign from which a list is taken for one of these; WordPiece lists have none
_SAMPLE = "한글"
_DECOMPOSED = 6  # letters in the sample


class Hangul(NamedTuple):
    """How many entries of a vocabulary have Hangul in each of its forms."""

    syllables: int  # 한: U+AC00 to U+D7A3
    letters: int  # of the block that Unicode's decomposition gives: U+1100 to U+11FF
    compatibility: int  # ㅎ: U+3131 to U+318E, which no normalizer gives


def mismatch(tokenizer: Any) -> str | None:
    """Return why a tokenizer cannot find the entries of its own vocabulary, with the remedy; None if it can.

    Args:
      tokenizer: a fast transformers tokenizer.
    """
    backend = tokenizer.backend_tokenizer
    if type(backend.model).__name__ != "WordPiece":
        return None
    tokens = backend.get_vocab(with_added_tokens=False)
    for sign, kind in _SIGNS.items():
        if sum(token.startswith(sign) for token in tokens) > _LISTED * len(tokens):
            return (f"its vocabulary lists pieces of {kind} ({sign}…), and {type(tokenizer).__name__} looks up words and"
                    f" ##pieces, so it finds next to none of them; the checkpoint needs a tokenizer.json of {kind} with the"
                    " ids of this list: docs/troubleshooting.md has the code that makes one")
    hangul = _hangul(tokens)
    below_syllables = max(hangul.letters, hangul.compatibility)
    if _takes_apart(backend) or below_syllables <= 4 * hangul.syllables or sum(hangul) < _LISTED * len(tokens):
        return None
    cause = ("its vocabulary has the letters of Hangul below syllables (sub-characters), and the tokenizer does not take"
             " syllables apart")
    if hangul.letters > hangul.compatibility:
        return f'{cause}: set "strip_accents": true in tokenizer_config.json'
    return (f"{cause}; its letters are those of U+3131 to U+318E, which no setting gives: take the texts apart with the"
            " checkpoint's own code before they are read here")


def cause_of_unknown(tokenizer: Any) -> str:
    """Return the likely cause of many unknown words, with the remedy."""
    if seen := mismatch(tokenizer):
        return seen
    backend = tokenizer.backend_tokenizer
    hangul = _hangul(backend.get_vocab(with_added_tokens=False))
    if _takes_apart(backend) and hangul.syllables > hangul.letters:
        return ('the tokenizer takes Hangul apart (lower-casing strips accents): for a Korean vocabulary, set'
                ' "do_lower_case": false or "strip_accents": false in tokenizer_config.json')
    return "the vocabulary does not cover this language or script: take another checkpoint or extend its vocabulary"


def _takes_apart(backend: Any) -> bool:
    """Return whether the normalizer takes syllables of Hangul apart."""
    return backend.normalizer is not None and len(backend.normalizer.normalize_str(_SAMPLE)) >= _DECOMPOSED


def _hangul(tokens: Iterable[str]) -> Hangul:
    syllables = letters = compatibility = 0
    for token in tokens:
        syllables += any("가" <= char <= "힣" for char in token)
        letters += any("\u1100" <= char <= "\u11ff" for char in token)
        compatibility += any("\u3131" <= char <= "\u318e" for char in token)
    return Hangul(syllables, letters, compatibility)
