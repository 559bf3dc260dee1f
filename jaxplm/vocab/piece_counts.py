"""One pass over texts that counts their words with the tokens of each; every distinct word is tokenized once.

A text is first cut at white space, which no tokenizer's word crosses. What stands between is tokenized where it is first met,
cut into the project's words (`jaxplm.data.corpus.words`), and remembered. So a pass costs little more than counting, and the counts
are those of tokenizing every text as a whole.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxplm.data.corpus.encode import Piece, token_arrays
from jaxplm.data.corpus.words import word_tables

# Unicode's White_Space, which is what the tokenizers go by; Python's own also has the control characters U+001C to U+001F.
_SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_BETWEEN = re.compile(f"[^{_SPACES}]+")
_WITH_SPACE_BEFORE = re.compile(f"[{_SPACES}]*[^{_SPACES}]+")
_BLOCK_CHARS = 1 << 21  # of text counted at once: large beside the cost of a call, small beside the tables
_BATCH = 8192  # strings tokenized at once
_MEMORY_CHARS = 1 << 23  # of strings whose words are remembered: some 300 MB with everything around them
MAX_WORDS = 1 << 19  # distinct words in the table: some 300 MB

_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\U00020000-\U0003ffff]")


class Word(NamedTuple):
    """A word as the tokenizer's normalizer writes it, and its tokens.

    A byte-level "hospital" with a space before it and one without are two words: they have different tokens.
    """

    text: str  # starts with a space where its first token stands for one
    ids: tuple[int, ...]


class Seen(NamedTuple):
    """How often a word occurs, and in how many texts."""

    count: int
    texts: int


def is_word(text: str) -> bool:
    """What a reader calls a word: it holds a letter or a digit. The rest is punctuation, signs and white space."""
    return any(map(str.isalnum, text))


def is_korean(text: str) -> bool:
    return bool(_HANGUL.search(text))


def is_unspaced(text: str) -> bool:
    """Of a script written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar)."""
    return bool(_UNSPACED.search(text))


class Totals(NamedTuple):
    """Sums over occurrences. `words` and what follows it leave out what is no word (`is_word`)."""

    tokens: int = 0
    unknown: int = 0  # tokens that stand for what the vocabulary cannot write
    words: int = 0
    word_tokens: int = 0
    whole: int = 0  # words of one token that is not the unknown one
    korean: int = 0
    unspaced: int = 0


class PieceCounter:
    """Counts the words of texts.

    Args:
      tokenizer: a fast transformers tokenizer; it is not changed.
      max_words: distinct words that the table may hold. Beyond it the rarest leave, until half is left: the totals still
        hold them, the table then misses words that occur at most `rarest` times in the texts read until then.

    Attributes:
      texts, characters, bytes: read so far; characters and UTF-8 bytes without white space.
      rarest, left_out: the largest count of a word that left the table, and the number of words that did.
    """

    def __init__(self, tokenizer: Any, max_words: int = MAX_WORDS) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._tables = word_tables(self._backend)
        self._unk = tokenizer.unk_token_id
        self._max_words = max_words
        # Where white space leaves no trace, "a" at a line's start and "a" after a space need not be told apart.
        blind = self._backend.encode(" \n a", add_special_tokens=False).ids == self._backend.encode("a", add_special_tokens=False).ids
        self._split = (_BETWEEN if blind else _WITH_SPACE_BEFORE).findall
        self._words: dict[Word, int] = {}  # numbers, which hash faster than words
        self._by_number: dict[int, Word] = {}
        self._known: dict[str, tuple[int, ...]] = {}  # the words of what stands between spaces
        self._known_chars = 0
        self._counts: Counter[int] = Counter()
        self._in_texts: Counter[int] = Counter()
        self._gone, self._gone_lengths = Totals(), Counter[int]()
        self._next = self.texts = self.characters = self.bytes = self.rarest = self.left_out = 0

    def add(self, texts: Iterable[str]) -> None:
        """Counts more texts, none of which was counted before."""
        for block in _blocks(texts):
            self._add_block(block)

    def words_of(self, text: str) -> list[Word]:
        """The words of one text, in order; nothing is counted."""
        parts = self._split(text)
        self._learn(dict.fromkeys(parts))
        return [self._by_number[number] for part in parts for number in self._known[part]]

    def _add_block(self, texts: list[str]) -> None:
        parts = [self._split(text) for text in texts]
        together = Counter(itertools.chain.from_iterable(parts))
        self._learn(together)
        for part, count in together.items():
            for word in self._known[part]:
                self._counts[word] += count
        for found in parts:
            self._in_texts.update(set(itertools.chain.from_iterable(map(self._known.__getitem__, set(found)))))
        visible = ["".join(_BETWEEN.findall(text)) for text in texts]
        self.texts += len(texts)
        self.characters += sum(map(len, visible))
        self.bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in visible)
        if len(self._words) > self._max_words:
            self._prune()
        if self._known_chars > _MEMORY_CHARS:
            self._known, self._known_chars = {}, 0

    def _learn(self, parts: Iterable[str]) -> None:
        """The words of strings that were not met before."""
        fresh = [part for part in parts if part not in self._known]
        for at in range(0, len(fresh), _BATCH):
            batch = fresh[at : at + _BATCH]
            encodings = self._backend.encode_batch(batch, add_special_tokens=False)
            ids, starts, lengths = token_arrays([Piece(part, True) for part in batch], encodings, self._tables)
            tokens, begin, place = ids.tolist(), 0, 0
            edges = [*np.flatnonzero(starts).tolist(), len(tokens)]
            for part, encoding, length in zip(batch, encodings, lengths.tolist(), strict=True):
                end, cuts = begin + length, []
                while edges[place] < end:
                    cuts.append(edges[place] - begin)
                    place += 1
                self._known[part] = self._words_of(part, encoding, tokens[begin:end], [*cuts, length])
                self._known_chars += len(part)
                begin = end

    def _words_of(self, part: str, encoding: Any, ids: list[int], cuts: list[int]) -> tuple[int, ...]:
        offsets = encoding.offsets if len(cuts) > 2 else [(0, len(part))] * len(ids)
        found = []
        for first, last in itertools.pairwise(cuts):
            surface = part[min(begin for begin, _ in offsets[first:last]) : max(end for _, end in offsets[first:last])]
            text = (" " if self._tables.opens[ids[first]] else "") + self._normal(surface)
            word = Word(text, tuple(ids[first:last]))
            number = self._words.get(word)
            if number is None:
                number = self._words[word] = self._next
                self._by_number[number] = word
                self._next += 1
            found.append(number)
        return tuple(found)

    def _normal(self, surface: str) -> str:
        surface = surface.strip()
        normalizer = self._backend.normalizer
        return surface if normalizer is None else normalizer.normalize_str(surface).replace("▁", " ").strip()

    def _prune(self) -> None:
        """Takes the rarest words out of the table, those of one count all together, so that order does not decide."""
        by_count = Counter(self._counts.values())
        left, limit = len(self._words), 0
        while left > self._max_words // 2:
            limit += 1
            left -= by_count[limit]
        gone = {word: number for word, number in self._words.items() if self._counts[number] <= limit}
        totals, lengths = self._sums(gone)
        self._gone, self._gone_lengths = add_totals(self._gone, totals), self._gone_lengths + lengths
        for word, number in gone.items():
            del self._words[word], self._by_number[number], self._counts[number], self._in_texts[number]
        self.rarest, self.left_out = max(self.rarest, limit), self.left_out + len(gone)
        # What holds a word that is gone has to be learned anew.
        self._known = {part: words for part, words in self._known.items() if all(map(self._by_number.__contains__, words))}
        self._known_chars = sum(map(len, self._known))

    def _sums(self, words: dict[Word, int]) -> tuple[Totals, Counter[int]]:
        sums, lengths = [0] * len(Totals._fields), Counter[int]()
        for word, number in words.items():
            count = self._counts[number]
            sums = [total + count * value for total, value in zip(sums, of_word(word, self._unk), strict=True)]
            if is_word(word.text):
                lengths[len(word.ids)] += count
        return Totals(*sums), lengths

    def table(self) -> dict[Word, Seen]:
        """Every word in the table, in the order in which they were met."""
        return {word: Seen(self._counts[number], self._in_texts[number]) for word, number in self._words.items()}

    def totals(self) -> tuple[Totals, Counter[int]]:
        """The sums over all texts, and {tokens of a word: words}."""
        totals, lengths = self._sums(self._words)
        return add_totals(self._gone, totals), self._gone_lengths + lengths


def of_word(word: Word, unknown_id: int | None) -> Totals:
    """The sums of one occurrence of a word."""
    pieces, unknown = len(word.ids), word.ids.count(unknown_id) if unknown_id is not None else 0
    if not is_word(word.text):
        return Totals(pieces, unknown)
    return Totals(pieces, unknown, 1, pieces, int(pieces == 1 and not unknown), is_korean(word.text), is_unspaced(word.text))


def add_totals(one: Totals, other: Totals) -> Totals:
    return Totals(*(a + b for a, b in zip(one, other, strict=True)))


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _BLOCK_CHARS:
            yield block
            block, size = [], 0
    if block:
        yield block
