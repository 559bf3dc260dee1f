"""Which entries a vocabulary lacks: those that save the most tokens on a corpus, and those of a user's list.

Greedy: the entry that saves most is taken, the words it changes are cut anew, and what the others would save is computed again
when they come to the top. Savings are exact (`jaxplm.vocab.segment`), not estimated from counts.

An occurrence in many texts weighs more than one in few: n occurrences in t texts weigh √(n·t), so a word of one long text
cannot outweigh one that many texts need. What is kept out, and why:

* words in fewer than `min_texts` texts, before anything is counted: names of one document, and nearly all slips of the pen.
  A rule against rare neighbours of frequent words would do harm: among 3,000 entries for medical answers the 15 that differ
  in one letter from a word twenty times as frequent are all words ("testes", "diagnoses", "injections");
* everything but letters (and their marks), but for digits inside a whole word that starts with a letter ("H1N1");
* a letter repeated four times or more ("ㅋㅋㅋㅋ", "soooo"): one word of endless spellings;
* parts of words that occur in fewer than three different words (however written), or have fewer than three Latin letters or
  two syllables of Hangul: a whole word serves as well there, or the part means nothing.
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

from jaxplm.vocab.measure import Measured
from jaxplm.vocab.piece_counts import Seen, is_word
from jaxplm.vocab.reach import Reach
from jaxplm.vocab.segment import Effect, Segments, segments
from jaxplm.vocab.terms import term_words

PART_WORDS = 3  # different words that a part of words must occur in
PART_WIDTH = 3  # Latin letters; a syllable of Hangul counts as two
_MOST_PIECES = 10  # of a candidate that is no whole word: longer parts are never worth a look
_REPEATED = re.compile(r"(.)\1\1\1")


@dataclass
class Chosen:
    """What to add.

    Attributes:
      tokens: entries in the order to add them, of the form that the vocabulary has ("##ness", "Ġhospital"). For byte-level
        BPE each is two tokens that were there before it, so every intermediate merge is among them.
      saved: tokens that each saves on the corpus once those before it are there; 0 for a step on the way to the next.
      wanted: how many of them come from the user's terms, at the beginning.
      known: terms that need nothing: each of their words is one token already.
      refused: {term: why it cannot be one token}.
    """

    tokens: list[str] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    wanted: int = 0
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def choose(measured: Measured, tokenizer: Any, count: int, *, terms: Iterable[str] = (), min_texts: int = 3) -> Chosen:
    """Chooses at most `count` entries; the same input gives the same ones, in the same order.

    Args:
      measured: of the domain's texts, by this tokenizer.
      tokenizer: fast, WordPiece or byte-level BPE.
      count: entries; steps on the way to an entry (byte-level BPE) are counted in.
      terms: words or phrases that come first, those first that save most. A phrase is taken word by word, for no token crosses a
        space; a word as the tokenizer cuts it ("beta-blocker": beta, blocker).
      min_texts: other words must occur in so many texts.

    Raises:
      UserError: the tokenizer's model is neither of the two.
    """
    found = term_words(terms, tokenizer)
    seen = {word: seen for word, seen in measured.table.items() if seen.texts >= min_texts and is_word(word.text)}
    words = list(dict.fromkeys([*found.words, *seen]))  # the terms' first, in their order
    counts = [measured.table.get(word, Seen(0, 0)) for word in words]
    greedy = _Greedy(segments(tokenizer, words), counts, Reach(tokenizer))
    wanted = greedy.segments.words[: len(found.words)]
    added, refused = greedy.take_wanted(wanted, count)
    greedy.take_best(set(greedy.segments.words), count - added)
    reasons = {found.words[words[wanted.index(entry)]]: reason for entry, reason in refused.items()}
    return Chosen(greedy.tokens, greedy.saved, added, found.known, found.refused | reasons)


class _Greedy:
    """The search: `tokens` and `saved` grow as entries are taken."""

    def __init__(self, cut: Segments, seen: Sequence[Seen], reach: Reach) -> None:
        self.segments, self._reach = cut, reach
        self._counts = [count for count, _ in seen]
        # A word in capitals, or without the space before it, is no other word.
        self._forms = [(cut.text(word) or word).lower() for word in cut.words]
        self._weights = [math.sqrt(count * texts) for count, texts in seen]
        self.tokens: list[str] = []
        self.saved: list[int] = []

    def take_wanted(self, entries: Sequence[str], room: int) -> tuple[int, dict[str, str]]:
        """Takes entries of a list, those that save most first, then in their order; all of them if there is room.

        Returns:
          How many entries were added, and {entry: why it cannot be}.
        """
        refused = {entry: reason for entry in entries if (reason := self._reach.reason(entry))}
        heap = [(-math.inf, place, entry) for place, entry in enumerate(dict.fromkeys(entries)) if entry not in refused]
        before = len(self.tokens)
        while heap and len(self.tokens) - before < room:
            _, place, entry = heapq.heappop(heap)
            if entry in self.segments:  # a step on the way to another
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
        """Takes the entries that save most, words of `whole` and parts of words."""
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
        """Puts entries that were not seen before on the heap, with what they save where their tokens stand side by side."""
        found: defaultdict[str, float] = defaultdict(float)
        for number in numbers:
            for entry, gain in self._candidates(number):
                if entry not in seen:
                    found[entry] += gain * self._weights[number]
        seen.update(found)
        for entry, gain in found.items():
            if gain > 0 and self._allowed(entry, entry in whole):
                heapq.heappush(heap, (-gain, entry))

    def _candidates(self, number: int) -> Iterator[tuple[str, float]]:
        """(entry, tokens saved by each entry it takes) of all neighbouring tokens of a word."""
        pieces = self.segments.pieces[number]
        if not pieces:
            yield self.segments.words[number], 1
        for begin, end in itertools.combinations(range(len(pieces) + 1), 2):
            if 2 <= end - begin and (end - begin <= _MOST_PIECES or end - begin == len(pieces)):
                yield self.segments.entry(pieces[begin:end], begin == 0), (end - begin - 1) / self.segments.steps(end - begin)

    def _allowed(self, entry: str, whole: bool) -> bool:
        text = self.segments.text(entry)
        if not text or _REPEATED.search(text):
            return False
        text = unicodedata.normalize("NFC", text)
        if whole:
            return text[0].isalpha() and all(map(_in_word, text))
        width = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
        return width >= PART_WIDTH and all(_in_word(char) and not char.isdigit() for char in text)

    def _score(self, effect: Effect) -> float:
        """Weighted tokens saved by each entry that is added."""
        gains = (self._weights[number] * (_cost(self.segments.pieces[number]) - len(new)) for number, new in sorted(effect.words.items()))
        return sum(gains) / len(effect.added)

    def _accept(self, entry: str, effect: Effect) -> None:
        saved = sum(self._counts[number] * (_cost(self.segments.pieces[number]) - len(new)) for number, new in effect.words.items())
        self.segments.accept(entry, effect)
        self.tokens += effect.added
        self.saved += [0] * (len(effect.added) - 1) + [saved]


def _cost(pieces: Sequence[str]) -> int:
    """Tokens of a word. An unknown one counts as two: that it can be read is worth a token."""
    return len(pieces) or 2


def _in_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")
