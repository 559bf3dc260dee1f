"""Read a user's terms and find the words that a vocabulary lacks for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxplm.data.sources.texts import open_texts
from jaxplm.errors import UserError
from jaxplm.vocab.piece_counts import PieceCounter, Word, is_word


@dataclass
class Terms:
    """What a vocabulary lacks for a list of terms.

    Attributes:
      words: {word that is several tokens or unknown: the first term that has it}, in the order of the terms.
      known: terms that need nothing: each of their words is one token already.
      refused: {term: why no token can stand for it}.
    """

    words: dict[Word, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def read_terms(file: str) -> list[str]:
    """Return the terms of a file with one term per line; repeated ones once.

    Raises `UserError` if it cannot be read or is empty.
    """
    if not Path(file).is_file():
        raise UserError(f"vocab.terms={file}: no such file (it has one term per line)")
    return list(dict.fromkeys(open_texts(file, lines="true")))


def term_words(terms: Iterable[str], tokenizer: Any) -> Terms:
    """Cut terms into words as in the middle of a text, and say what each term lacks.

    No token crosses a space, so a phrase is taken word by word, and so is a word that the tokenizer itself cuts
    ("beta-blocker": beta, blocker). Numbers count as words, punctuation does not. A term without a space that is cut
    into several words, each one token already ("95%"), is refused: no new entry could make one token of it.
    """
    result = Terms()
    counter = PieceCounter(tokenizer)
    for term in terms:
        words = counter.words_of(" " + term)  # in byte-level vocabularies the space belongs to the word
        lacking = [
            word for word in words if is_word(word.text) and (len(word.ids) > 1 or tokenizer.unk_token_id in word.ids)
        ]
        for word in lacking:
            result.words.setdefault(word, term)
        if lacking:
            continue
        if not any(is_word(word.text) for word in words):
            result.refused[term] = "has no letter or digit"
        elif len(words) > 1 and len(term.split()) == 1:
            result.refused[term] = "is cut into " + ", ".join(repr(word.text.strip()) for word in words)
        else:
            result.known.append(term)
    return result
