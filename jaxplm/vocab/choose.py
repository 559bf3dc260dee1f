"""Choose the entries that a vocabulary lacks: those that save the most tokens on a corpus, and those of a user's list.

The search is greedy: it takes the entry that saves most and cuts the words that this changes again. What another entry
would save is computed again when it comes to the top. Savings are exact (`jaxplm.vocab.segment`), not estimated from
counts.

An occurrence in many texts weighs more than one in few: n occurrences in t texts weigh √(n·t), so a word of one long
text cannot outweigh one that many texts need. What is left out, and why:

* Words in fewer than `min_texts` texts, before anything is counted: names of one document, and nearly all misspellings.
  A rule against rare neighbours of frequent words would do harm: among 3,000 entries for medical answers, the 15 that
  differ in one letter from a word twenty times as frequent are all words ("testes", "diagnoses", "injections").
* Everything but letters and their marks, except digits inside a whole word that starts with a letter ("H1N1").
* A letter repeated four times or more ("ㅋㅋㅋㅋ", "soooo"): such a word has endless spellings.
* Parts of words that occur in fewer than three different words (whatever their case), or have fewer than three Latin
  letters or two syllables of Hangul: a whole word serves as well there, or the part means nothing.
"""

import heapq
import itertools
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxplm.vocab.measure import Measurement
from jaxplm.vocab.piece_counts import Occurrences, is_word
from jaxplm.vocab.reach import Reach
from jaxplm.vocab.segment import Effect, Segments, segment_words
from jaxplm.vocab.terms import term_words

PART_WORDS = 3  # different words in which a part of words must occur
PART_WIDTH = 3  # Latin letters that a part must have; a syllable of Hangul counts as two
_MOST_PIECES = 10  # of a candidate that is not a whole word: longer parts never save enough
_REPEATED = re.compile(r"(.)\1\1\1")


@dataclass
class ChosenTokens:
    """Entries to add to a vocabulary.

    Attributes:
      tokens: entries in the order to add them, as the vocabulary has them ("##ness", "Ġhospital"). For byte-level BPE
        each is two tokens that were there before it, so every intermediate merge is among them.
      saved: tokens that each saves on the corpus once those before it are there; 0 for an intermediate step to the
        next.
      wanted: how many of them, at the beginning, come from the user's terms.
      known: terms that need nothing: each of their words is one token already.
      refused: {term: why it cannot be one token}.
    """

    tokens: list[str] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    wanted: int = 0
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def choose_tokens(
    measurement: Measurement, tokenizer: Any, count: int, *, terms: Iterable[str] = (), min_texts: int = 3
) -> ChosenTokens:
    """Choose at most `count` entries; the same input gives the same entries, in the same order.

    Args:
      measurement: of the domain's texts, by this tokenizer.
      tokenizer: a fast transformers tokenizer, WordPiece or byte-level BPE.
      count: entries, including the intermediate steps of byte-level BPE.
      terms: words or phrases to take first, those that save most at the beginning. A phrase is taken word by word, as
        no token crosses a space, and a word as the tokenizer cuts it ("beta-blocker": beta, blocker).
      min_texts: texts in which other words must occur.

    Raises:
      UserError: the tokenizer's model is neither WordPiece nor byte-level BPE.
    """
    asked = term_words(terms, tokenizer)
    frequent = [
        word for word, occurrences in measurement.table.items() if occurrences.texts >= min_texts and is_word(word.text)
    ]
    words = list(dict.fromkeys([*asked.words, *frequent]))  # those of the terms first, in their order
    occurrences = [measurement.table.get(word, Occurrences(0, 0)) for word in words]
    search = _Search(segment_words(tokenizer, words), occurrences, Reach(tokenizer))
    wanted = search.segments.words[: len(asked.words)]
    added, refused = search.take_wanted(wanted, count)
    search.take_best(set(search.segments.words), count - added)
    reasons = {asked.words[words[wanted.index(entry)]]: reason for entry, reason in refused.items()}
    return ChosenTokens(search.tokens, search.saved, added, asked.known, asked.refused | reasons)


class _Search:
    """The greedy search: `tokens` and `saved` grow as entries are taken."""

    def __init__(self, segments: Segments, occurrences: Sequence[Occurrences], reach: Reach) -> None:
        self.segments, self._reach = segments, reach
        self._counts = [count for count, _ in occurrences]
        # A word in capitals, or without the space before it, is not a different word.
        self._forms = [(segments.text(word) or word).lower() for word in segments.words]
        self._weights = [math.sqrt(count * texts) for count, texts in occurrences]
        self.tokens: list[str] = []
        self.saved: list[int] = []

    def take_wanted(self, entries: Sequence[str], room: int) -> tuple[int, dict[str, str]]:
        """Take entries of a list while there is room, those that save most first, then in their order.

        Returns:
          How many entries were added, and {entry: why it cannot be added}.
        """
        refused = {entry: reason for entry in entries if (reason := self._reach.reason(entry))}
        heap = [(-math.inf, place, entry) for place, entry in enumerate(dict.fromkeys(entries)) if entry not in refused]
        before = len(self.tokens)
        while heap and len(self.tokens) - before < room:
            _, place, entry = heapq.heappop(heap)
            if entry in self.segments:  # it was an intermediate step to another one
                continue
            effect = self.segments.effect(entry)
            if effect is None:
                refused[entry] = "cannot be added without changing other words"
                continue
            score = self._score(effect)
            if heap and (-score, place) > heap[0][:2]:
                heapq.heappush(heap, (-score, place, entry))
            elif len(effect.added) <= room - len(self.tokens) + before:
                self._accept(entry, effect)
        return len(self.tokens) - before, refused

    def take_best(self, whole: set[str], room: int) -> None:
        """Take the entries that save most, among the words of `whole` and parts of words."""
        seen: set[str] = set()
        heap: list[tuple[float, str]] = []
        self._push(heap, seen, range(len(self._weights)), whole)
        end = len(self.tokens) + room
        while heap and len(self.tokens) < end:
            _, entry = heapq.heappop(heap)
            if entry in self.segments or (effect := self.segments.effect(entry)) is None:
                continue
            if entry not in whole and len({self._forms[number] for number in effect.words}) < PART_WORDS:
                continue
            score = self._score(effect)
            if heap and (-score, entry) > heap[0]:
                if score > 0:
                    heapq.heappush(heap, (-score, entry))
            elif score > 0 and len(effect.added) <= end - len(self.tokens) and not self._reach.reason(entry):
                self._accept(entry, effect)
                self._push(heap, seen, effect.words, whole)

    def _push(self, heap: list[tuple[float, str]], seen: set[str], numbers: Iterable[int], whole: set[str]) -> None:
        """Put entries that were not seen before on the heap, with what they save where their tokens stand side by side.
        """
        gains: defaultdict[str, float] = defaultdict(float)
        for number in numbers:
            for entry, gain in self._candidates(number):
                if entry not in seen:
                    gains[entry] += gain * self._weights[number]
        seen.update(gains)
        for entry, gain in gains.items():
            if gain > 0 and self._allowed(entry, entry in whole):
                heapq.heappush(heap, (-gain, entry))

    def _candidates(self, number: int) -> Iterator[tuple[str, float]]:
        """Yield (entry, tokens saved per entry that it takes) for all runs of neighbouring tokens of a word."""
        pieces = self.segments.pieces[number]
        if not pieces:
            yield self.segments.words[number], 1
        for begin, end in itertools.combinations(range(len(pieces) + 1), 2):
            if 2 <= end - begin and (end - begin <= _MOST_PIECES or end - begin == len(pieces)):
                yield (
                    self.segments.entry(pieces[begin:end], begin == 0),
                    (end - begin - 1) / self.segments.steps(end - begin),
                )

    def _allowed(self, entry: str, whole: bool) -> bool:
        """Return whether an entry passes the rules of this module's docstring; `whole`: it is a whole word."""
        text = self.segments.text(entry)
        if not text or _REPEATED.search(text):
            return False
        text = unicodedata.normalize("NFC", text)
        if whole:
            return text[0].isalpha() and all(map(_in_word, text))
        width = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
        return width >= PART_WIDTH and all(_in_word(char) and not char.isdigit() for char in text)

    def _score(self, effect: Effect) -> float:
        """Return the weighted tokens saved per entry that is added."""
        gains = (
            self._weights[number] * (_cost(self.segments.pieces[number]) - len(new))
            for number, new in sorted(effect.words.items())
        )
        return sum(gains) / len(effect.added)

    def _accept(self, entry: str, effect: Effect) -> None:
        saved = sum(
            self._counts[number] * (_cost(self.segments.pieces[number]) - len(new))
            for number, new in effect.words.items()
        )
        self.segments.accept(entry, effect)
        self.tokens += effect.added
        self.saved += [0] * (len(effect.added) - 1) + [saved]


def _cost(pieces: Sequence[str]) -> int:
    """Return the tokens of a word. An unknown word counts as two, so that making it readable saves one."""
    return len(pieces) or 2


def _in_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")
