"""Count the words of texts with the tokens of each, in one pass; every distinct word is tokenized once.

A text is first cut at the white space that begins a word for the tokenizer. What stands between is tokenized when it
first occurs, cut into the words of `jaxplm.data.corpus.words`, and remembered. So a pass costs little more than
counting, and the counts are those of tokenizing every text as a whole.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxplm.data.corpus.encode import Piece, token_arrays
from jaxplm.data.corpus.words import word_tables

# Unicode's White_Space, which the tokenizers go by; Python's str.split() also takes the control characters U+001C to
# U+001F.
_SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_EVERY_SPACE = [chr(code) for code in range(0x3001) if re.match(f"[{_SPACES}]", chr(code))]
_BETWEEN = re.compile(f"[^{_SPACES}]+")
_BLOCK_CHARS = 1 << 21  # characters counted at once: much beside the cost of a call, little beside the tables
_BATCH = 8192  # strings tokenized at once
_MEMORY_CHARS = 1 << 23  # characters of the strings whose words are remembered, about 300 MB in all
MAX_WORDS = 1 << 19  # distinct words in the table, about 300 MB

_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\U00020000-\U0003ffff]"
)


class Word(NamedTuple):
    """A word as the tokenizer's normalizer writes it, and its tokens.

    A byte-level "hospital" with a space before it and one without are two words: they have different tokens.
    """

    text: str  # starts with a space where its first token stands for one
    ids: tuple[int, ...]


class Occurrences(NamedTuple):
    """How often a word occurs, and in how many texts it does."""

    count: int
    texts: int


def is_word(text: str) -> bool:
    """Return whether a text holds a letter or a digit, and is not just punctuation, signs and white space."""
    return any(map(str.isalnum, text))


def is_korean(text: str) -> bool:
    """Return whether a text holds Hangul."""
    return bool(_HANGUL.search(text))


def is_unspaced(text: str) -> bool:
    """Return whether a text holds a script written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar)."""
    return bool(_UNSPACED.search(text))


class Totals(NamedTuple):
    """Sums over occurrences. `words` and the fields after it leave out what is not a word (`is_word`)."""

    tokens: int = 0
    unknown: int = 0  # tokens that stand for what the vocabulary cannot write
    words: int = 0
    word_tokens: int = 0
    whole: int = 0  # words of one token that is not the unknown one
    korean: int = 0
    unspaced: int = 0


def _parts(backend: Any) -> re.Pattern[str]:
    """Match the parts of a text that this tokenizer cuts independently of each other.

    Parts end at white space, but not at all of it: a tokenizer that has Metaspace alone begins a word at U+0020, and a
    no-break space is a character of the word. If the normalizer writes a run of white space as one space, as that of
    CamemBERT does in some releases, a no-break space beside other white space is no character of the word.
    """
    def ids(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids

    separators = "".join(space for space in _EVERY_SPACE if ids(f"a{space}a") == ids("a") + ids(f"{space}a"))
    fused = "".join(space for space in _EVERY_SPACE if space not in separators and ids(f"a {space}a") == ids("a a"))
    if fused:
        either = separators + fused
        return re.compile(f"[{either}]*(?:[^{either}]|(?<![{either}])[{fused}](?![{either}]))+")
    # Where white space does not change the tokens, "a" at the start of a line and "a" after a space need not be told
    # apart.
    ignores_space = ids(" \n a") == ids("a")
    return re.compile(f"[^{separators}]+" if ignores_space else f"[{separators}]*[^{separators}]+")


class PieceCounter:
    """Counts the words of texts.

    Args:
      tokenizer: a fast transformers tokenizer; it is not changed.
      max_words: distinct words that the table may hold. Beyond it the rarest are dropped until half is left. The totals
        still hold them; the table lacks words that occurred at most `rarest` times in the texts read until then.

    Attributes:
      texts, characters, bytes: of what was read so far; characters and UTF-8 bytes without white space.
      rarest, left_out: the largest count of a dropped word, and the number of dropped words.
    """

    def __init__(self, tokenizer: Any, max_words: int = MAX_WORDS) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._tables = word_tables(self._backend)
        self._unk = tokenizer.unk_token_id
        self._max_words = max_words
        self._split = _parts(self._backend).findall
        self._words: dict[Word, int] = {}  # words are counted by number, because numbers hash faster
        self._by_number: dict[int, Word] = {}
        self._known: dict[str, tuple[int, ...]] = {}  # the words of what stands between spaces
        self._known_chars = 0
        self._counts: Counter[int] = Counter()
        self._in_texts: Counter[int] = Counter()
        self._dropped, self._dropped_lengths = Totals(), Counter[int]()
        self._next_number = 0
        self.texts = self.characters = self.bytes = 0
        self.rarest = self.left_out = 0

    def add(self, texts: Iterable[str]) -> None:
        """Count more texts."""
        for block in _blocks(texts):
            self._add_block(block)

    def words_of(self, text: str) -> list[Word]:
        """Return the words of one text, in order; nothing is counted."""
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
        for text_parts in parts:
            self._in_texts.update(set(itertools.chain.from_iterable(map(self._known.__getitem__, set(text_parts)))))
        visible = ["".join(_BETWEEN.findall(text)) for text in texts]
        self.texts += len(texts)
        self.characters += sum(map(len, visible))
        self.bytes += sum(len(text.encode("utf-8", "surrogatepass")) for text in visible)
        if len(self._words) > self._max_words:
            self._prune()
        if self._known_chars > _MEMORY_CHARS:
            self._known, self._known_chars = {}, 0

    def _learn(self, parts: Iterable[str]) -> None:
        """Cut strings into words, those that are not known yet."""
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
        """Return the numbers of the words between the cuts of a string's tokens."""
        offsets = encoding.offsets if len(cuts) > 2 else [(0, len(part))] * len(ids)
        numbers = []
        for first, last in itertools.pairwise(cuts):
            surface = part[min(begin for begin, _ in offsets[first:last]) : max(end for _, end in offsets[first:last])]
            text = (" " if self._tables.opens[ids[first]] else "") + self._normalized(surface)
            word = Word(text, tuple(ids[first:last]))
            number = self._words.get(word)
            if number is None:
                number = self._words[word] = self._next_number
                self._by_number[number] = word
                self._next_number += 1
            numbers.append(number)
        return tuple(numbers)

    def _normalized(self, surface: str) -> str:
        surface = surface.strip()
        normalizer = self._backend.normalizer
        return surface if normalizer is None else normalizer.normalize_str(surface).replace("▁", " ").strip()

    def _prune(self) -> None:
        """Drop the rarest words from the table, all those of one count together, so that their order does not decide.
        """
        by_count = Counter(self._counts.values())
        left, limit = len(self._words), 0
        while left > self._max_words // 2:
            limit += 1
            left -= by_count[limit]
        dropped = {word: number for word, number in self._words.items() if self._counts[number] <= limit}
        totals, lengths = self._sums(dropped)
        self._dropped, self._dropped_lengths = _add_totals(self._dropped, totals), self._dropped_lengths + lengths
        for word, number in dropped.items():
            del self._words[word], self._by_number[number], self._counts[number], self._in_texts[number]
        self.rarest, self.left_out = max(self.rarest, limit), self.left_out + len(dropped)
        # Strings that hold a dropped word have to be cut again when they occur.
        self._known = {
            part: words for part, words in self._known.items() if all(map(self._by_number.__contains__, words))
        }
        self._known_chars = sum(map(len, self._known))

    def _sums(self, words: dict[Word, int]) -> tuple[Totals, Counter[int]]:
        """Return the sums over occurrences of these words, and {tokens of a word: occurrences}."""
        sums, lengths = [0] * len(Totals._fields), Counter[int]()
        for word, number in words.items():
            count = self._counts[number]
            sums = [total + count * value for total, value in zip(sums, word_totals(word, self._unk), strict=True)]
            if is_word(word.text):
                lengths[len(word.ids)] += count
        return Totals(*sums), lengths

    def table(self) -> dict[Word, Occurrences]:
        """Return every word in the table, in the order in which they first occurred."""
        return {word: Occurrences(self._counts[number], self._in_texts[number]) for word, number in self._words.items()}

    def totals(self) -> tuple[Totals, Counter[int]]:
        """Return the sums over all texts, and {tokens of a word: occurrences of such words}."""
        totals, lengths = self._sums(self._words)
        return _add_totals(self._dropped, totals), self._dropped_lengths + lengths


def word_totals(word: Word, unknown_id: int | None) -> Totals:
    """Return the sums for one occurrence of a word."""
    pieces, unknown = len(word.ids), word.ids.count(unknown_id) if unknown_id is not None else 0
    if not is_word(word.text):
        return Totals(pieces, unknown)
    return Totals(
        pieces, unknown, 1, pieces, int(pieces == 1 and not unknown), is_korean(word.text), is_unspaced(word.text)
    )


def _add_totals(one: Totals, other: Totals) -> Totals:
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
