"""Cut the words of a corpus as a tokenizer would if its vocabulary had more entries.

Two models are followed exactly, for words that the tokenizer separates before it looks them up:

* WordPiece (Wu et al. 2016): from the left, always the longest entry that fits. A new entry needs no other.
* Byte-level BPE (Sennrich et al. 2016) with new merges at the end of the list: they join neighbouring tokens that all
  old merges have left. A new entry of k tokens needs k - 1 merges, each an entry of its own. They join from the left
  where that works, else from the right.

An effect says what an entry would change. Nothing changes until it is accepted.
"""

import itertools
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from jaxplm.data.corpus.token_text import byte_alphabet
from jaxplm.vocab.piece_counts import Word
from jaxplm.vocab.reach import WORDPIECE, kind_of

Pieces = tuple[str, ...]


class Effect(NamedTuple):
    """What a new entry would change.

    Attributes:
      added: entries that come with it, itself last.
      words: {number of a word: its new tokens}, for the words that change.
      merges: of byte-level BPE, one for each of `added`.
    """

    added: list[str]
    words: dict[int, Pieces]
    merges: list[tuple[str, str]] = []


class Segments(ABC):
    """Words with their tokens.

    Attributes:
      words: [n] as the model sees them: normalized, byte-level ones in the byte alphabet ("Ġhospital").
      pieces: [n] the tokens of each as entries of the vocabulary ("##ness"); () where the word cannot be written.
    """

    def __init__(self, vocabulary: Iterable[str], words: Sequence[str], pieces: Sequence[Pieces]) -> None:
        self.words, self.pieces = list(words), list(pieces)
        self._vocabulary = set(vocabulary)
        self._places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)  # words by neighbouring tokens
        for number in range(len(self.words)):
            self._index(number)

    def __contains__(self, entry: str) -> bool:
        return entry in self._vocabulary

    @abstractmethod
    def entry(self, pieces: Pieces, first: bool) -> str:
        """Return the entry that would stand for neighbouring tokens; `first`: they begin a word."""

    @abstractmethod
    def text(self, entry: str) -> str | None:
        """Return the text of an entry, without a mark of space or continuation.

        None if it is not a whole number of characters.
        """

    @abstractmethod
    def effect(self, entry: str) -> Effect | None:
        """Return what one more entry would change; None if it cannot be added, or if a word could no longer be written.
        """

    def steps(self, pieces: int) -> int:
        """Return how many entries it takes to make one token of this many."""
        return 1

    @abstractmethod
    def _keys(self, number: int) -> Iterable[tuple[str, str]]:
        """Yield the keys under which `effect` looks a word up."""

    def accept(self, entry: str, effect: Effect) -> None:
        """Apply an effect, which must be of the present vocabulary."""
        self._vocabulary.update(effect.added)
        for number, pieces in effect.words.items():
            for key in self._keys(number):
                self._places[key].discard(number)
            self.pieces[number] = pieces
            self._index(number)

    def _index(self, number: int) -> None:
        for key in self._keys(number):
            self._places[key].add(number)


class WordPieceSegments(Segments):
    """For WordPiece. `prefix` marks what continues a word ("##")."""

    def __init__(
        self, vocabulary: Iterable[str], words: Sequence[str], pieces: Sequence[Pieces], prefix: str = "##"
    ) -> None:
        self._prefix = prefix
        super().__init__(vocabulary, words, pieces)
        self._longest = max(map(len, self._vocabulary), default=1)

    def entry(self, pieces: Pieces, first: bool) -> str:
        return (
            ("" if first else self._prefix)
            + (pieces[0] if first else self._bare(pieces[0]))
            + "".join(map(self._bare, pieces[1:]))
        )

    def text(self, entry: str) -> str:
        return self._bare(entry)

    def _bare(self, piece: str) -> str:
        return piece.removeprefix(self._prefix)

    def effect(self, entry: str) -> Effect | None:
        first = not entry.startswith(self._prefix)
        text = entry if first else self._bare(entry)
        # Every word with `text` at a token's start has the same token there: the longest one within `text`.
        now = self._longest_within(text, 0, first, "")
        changed: dict[int, Pieces] = {}
        if first:
            changed |= {number: (entry,) for number in self._places.get(("", text), ())}
        after = len(now) if first else len(self._bare(now))
        for number in self._places.get((now, text[after]), ()) if now else ():
            pieces = self._with(number, entry, text, now)
            if pieces is None:
                return None
            if pieces != self.pieces[number]:
                changed[number] = pieces
        return Effect([entry], changed)

    def _with(self, number: int, entry: str, text: str, now: str) -> Pieces | None:
        """Return the tokens of a word with one more entry; None if no entry fits the rest of the word then."""
        word, begin = self.words[number], 0
        for place, piece in enumerate(self.pieces[number]):
            if piece == now and word.startswith(text, begin):
                head = self.pieces[number][:place]
                break
            begin += len(piece) if place == 0 else len(self._bare(piece))
        else:
            return self.pieces[number]
        pieces = list(head)
        while begin < len(word):
            piece = self._longest_within(word, begin, begin == 0, entry)
            if not piece:
                return None
            pieces.append(piece)
            begin += len(piece) if begin == 0 else len(self._bare(piece))
        return tuple(pieces)

    def _longest_within(self, word: str, begin: int, first: bool, extra: str) -> str:
        """Return the longest entry, or `extra`, that `word` has at `begin`; "" if there is none."""
        prefix = "" if first else self._prefix
        for end in range(min(len(word), begin + max(self._longest, len(extra))), begin, -1):
            piece = prefix + word[begin:end]
            if piece in self._vocabulary or piece == extra:
                return piece
        return ""

    def accept(self, entry: str, effect: Effect) -> None:
        super().accept(entry, effect)
        self._longest = max(self._longest, len(entry))

    def _keys(self, number: int) -> Iterable[tuple[str, str]]:
        """Yield each token with the character after it.

        A new entry that starts with the token has to continue with that character.
        """
        word, end = self.words[number], 0
        if not self.pieces[number]:
            yield "", word
        for place, piece in enumerate(self.pieces[number]):
            end += len(piece) if place == 0 else len(self._bare(piece))
            if end < len(word):
                yield piece, word[end]


class ByteBpeSegments(Segments):
    """For byte-level BPE. `old` gives the tokens of a string by the old merges alone."""

    def __init__(
        self, vocabulary: Iterable[str], words: Sequence[str], pieces: Sequence[Pieces], old: Callable[[str], Pieces]
    ) -> None:
        self._old = old
        self._alphabet = byte_alphabet()
        self._ranks: dict[tuple[str, str], int] = {}  # of the new merges
        super().__init__(vocabulary, words, pieces)

    def steps(self, pieces: int) -> int:
        return pieces - 1

    def entry(self, pieces: Pieces, first: bool) -> str:
        del first  # the space before a word is part of its first token
        return "".join(pieces)

    def text(self, entry: str) -> str | None:
        try:
            return bytes(self._alphabet[char] for char in entry).decode().removeprefix(" ")
        except (KeyError, UnicodeDecodeError):
            return None

    def effect(self, entry: str) -> Effect | None:
        """Return what one more entry would change; None if it cannot be added.

        That is so too where an intermediate token is an entry already: a new merge to it would change old texts.
        """
        pieces = self._merge(self._old(entry), self._ranks)
        if len(pieces) < 2:
            return None
        for merges in (_chain(pieces, 0), _chain(pieces, -2)):
            added = [a + b for a, b in merges]
            if self._vocabulary.isdisjoint(added):
                ranks = {merge: rank for rank, merge in enumerate(merges)}
                places = self._places.get(merges[0], ())
                merged = {number: self._merge(self.pieces[number], ranks) for number in places}
                return Effect(
                    added, {number: new for number, new in merged.items() if new != self.pieces[number]}, merges
                )
        return None

    def _merge(self, pieces: Sequence[str], ranks: dict[tuple[str, str], int]) -> Pieces:
        """Return the tokens after merges: the lowest rank first, each from left to right."""
        pieces = tuple(pieces)
        while ranks and len(pieces) > 1:
            rank, pair = min((ranks.get(pair, len(ranks)), pair) for pair in itertools.pairwise(pieces))
            if rank == len(ranks):
                break
            pieces = _join(pieces, pair)
        return pieces

    def accept(self, entry: str, effect: Effect) -> None:
        for merge in effect.merges:
            self._ranks[merge] = len(self._ranks)
        super().accept(entry, effect)

    def _keys(self, number: int) -> Iterable[tuple[str, str]]:
        return itertools.pairwise(self.pieces[number])


def _join(pieces: Pieces, pair: tuple[str, str]) -> Pieces:
    """Return the tokens after one merge, wherever its two stand side by side, from left to right."""
    merged, place = [], 0
    while place < len(pieces):
        both = pieces[place : place + 2] == pair
        merged.append("".join(pair) if both else pieces[place])
        place += 2 if both else 1
    return tuple(merged)


def _chain(pieces: Pieces, place: int) -> list[tuple[str, str]]:
    """Return merges that make one token of neighbouring ones.

    They join always the first two (`place` 0) or the last two (-2).

    A merge joins its pair everywhere, so repeated tokens need fewer.
    """
    merges = []
    while len(pieces) > 1:
        merges.append((pieces[place], pieces[place + 1]))
        pieces = _join(pieces, merges[-1])
    return merges


def segment_words(tokenizer: Any, words: Sequence[Word]) -> Segments:
    """Return the words with their present tokens.

    Raises:
      UserError: the tokenizer's model is neither WordPiece nor byte-level BPE.
    """
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    kind = kind_of(state)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    tokens = [tuple(tokenizer.convert_ids_to_tokens(word.ids)) for word in words]
    if kind == WORDPIECE:
        pieces = [() if tokenizer.unk_token in of_word else of_word for of_word in tokens]
        return WordPieceSegments(
            vocabulary, [word.text for word in words], pieces, state["model"]["continuing_subword_prefix"]
        )
    model = backend.model
    return ByteBpeSegments(vocabulary, ["".join(of_word) for of_word in tokens], tokens,
                           lambda text: tuple(token.value for token in model.tokenize(text)))
