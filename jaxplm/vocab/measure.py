"""How a tokenizer cuts the words of a corpus: fertility, unknown tokens, splits, overlap with general text.

What is counted. A word is what whole-word masking takes for one (`jaxplm.data.corpus.words`): in scripts with spaces, what stands
between spaces with punctuation split off; in Korean that is the eojeol, a stem with its particles and endings. Words are
those with a letter or a digit; punctuation and signs count as tokens only. Characters and bytes are without white space.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jaxplm.errors import UserError
from jaxplm.vocab.piece_counts import MAX_WORDS, PieceCounter, Seen, Totals, Word, add_totals, is_word, of_word

# A word is typical of the domain where it is so many times as frequent there as in general text.
TYPICAL = 4.0
# A split that is shown occurs in so many texts: below that, most are names and slips of one author.
MIN_TEXTS = 3
SHOWN = 15  # splits in a table or a plot
# Figure 2 of Gururangan et al. 2020 compares the 10,000 most frequent words without stop words. A list of those would be one
# language's; instead a word among the 100 most frequent of both corpora counts as one.
OVERLAP_WORDS, STOP_WORDS = 10_000, 100
_BATCH = 8192  # words tokenized at once


@dataclass
class Measured:
    """Counts over texts; `+` adds those of other texts, read with the same tokenizer.

    Attributes:
      texts, characters, bytes: read; characters and UTF-8 bytes without white space.
      totals: sums over all tokens and words.
      lengths: {tokens of a word: occurrences}.
      table: every distinct word; after `left_out` > 0 without so many rare ones (see `piece_counts.PieceCounter`).
    """

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    totals: Totals = Totals()
    lengths: Counter[int] = field(default_factory=Counter)
    table: dict[Word, Seen] = field(default_factory=dict)
    left_out: int = 0
    unknown_id: int | None = None

    def __add__(self, other: "Measured") -> "Measured":
        table = dict(self.table)
        for word, seen in other.table.items():
            mine = table.get(word, Seen(0, 0))
            table[word] = Seen(mine.count + seen.count, mine.texts + seen.texts)
        return Measured(self.texts + other.texts, self.characters + other.characters, self.bytes + other.bytes,
                        add_totals(self.totals, other.totals), self.lengths + other.lengths, table,
                        self.left_out + other.left_out, self.unknown_id)

    @property
    def fertility(self) -> float:
        """Tokens a word (Rust et al. 2021)."""
        return self.totals.word_tokens / max(1, self.totals.words)

    @property
    def extra(self) -> int:
        """Tokens beyond one a word: what splitting costs."""
        return self.totals.word_tokens - self.totals.words

    @property
    def tokens_per_character(self) -> float:
        return self.totals.tokens / max(1, self.characters)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.totals.tokens)

    @property
    def unknown_share(self) -> float:
        """Share of the unknown token, among all tokens."""
        return self.totals.unknown / max(1, self.totals.tokens)

    @property
    def whole_share(self) -> float:
        """Share of words, counted as often as they occur, that are one known token."""
        return self.totals.whole / max(1, self.totals.words)

    @property
    def whole_distinct_share(self) -> float:
        """The same with every distinct word counted once; rare ones that left the table are missing."""
        words = [word for word in self.table if is_word(word.text)]
        return sum(len(word.ids) == 1 and word.ids[0] != self.unknown_id for word in words) / max(1, len(words))


def measure(texts: Iterable[str], tokenizer: Any, *, max_words: int = MAX_WORDS) -> Measured:
    """Counts the words of texts and the tokens they are cut into.

    One pass. Memory is bounded by `max_words`; nearly all of the time goes into counting and into the distinct words.

    Args:
      texts: stripped texts, such as `jaxplm.data.sources.texts.open_texts` yields.
      tokenizer: a fast transformers tokenizer of any model (WordPiece, BPE, Unigram).
      max_words: distinct words kept; the sums over all words are exact in any case.

    Raises:
      UserError: the texts have no word.
    """
    counter = PieceCounter(tokenizer, max_words)
    counter.add(texts)
    totals, lengths = counter.totals()
    if not totals.words:
        raise UserError(f"no word in {counter.texts} texts: nothing to measure a vocabulary on")
    return Measured(counter.texts, counter.characters, counter.bytes, totals, lengths, counter.table(), counter.left_out,
                    tokenizer.unk_token_id)


def measured_again(measured: Measured, tokenizer: Any) -> Measured:
    """The same texts by another tokenizer that differs in its vocabulary alone, without reading them again.

    Every word of the table is tokenized anew. Rare words that left it keep their old tokens in the sums.
    """
    words = [word for word in measured.table if word.text]
    sums, lengths = list(measured.totals), Counter(measured.lengths)
    table = {word: seen for word, seen in measured.table.items() if not word.text}
    for at in range(0, len(words), _BATCH):
        batch = words[at : at + _BATCH]
        encodings = tokenizer.backend_tokenizer.encode_batch([word.text for word in batch], add_special_tokens=False)
        for word, encoding in zip(batch, encodings, strict=True):
            new, seen = Word(word.text, tuple(encoding.ids)), measured.table[word]
            before = table.get(new, Seen(0, 0))
            table[new] = Seen(before.count + seen.count, before.texts + seen.texts)
            for one, sign in ((word, -1), (new, 1)):
                sums = [total + sign * seen.count * value for total, value in zip(sums, of_word(one, measured.unknown_id), strict=True)]
                if is_word(word.text):
                    lengths[len(one.ids)] += sign * seen.count
    return replace(measured, totals=Totals(*sums), lengths=+lengths, table=table)


class Split(NamedTuple):
    """A word that is cut, or unknown."""

    word: str  # as a reader writes it
    ids: tuple[int, ...]
    count: int
    texts: int

    @property
    def cost(self) -> int:
        """Tokens beyond one, over all occurrences."""
        return self.count * (len(self.ids) - 1)


def readable(text: str) -> str:
    """A word of the table as a reader writes it; decomposed Hangul is composed again."""
    return unicodedata.normalize("NFC", text.strip())


def frequent_splits(measured: Measured, most: int = SHOWN) -> list[Split]:
    """The words of more than one token that occur most often; ties by the alphabet."""
    return sorted(_splits(measured), key=lambda split: (-split.count, split.word, split.ids))[:most]


def damaging_splits(measured: Measured, general: Measured | None = None, most: int = SHOWN, min_texts: int = MIN_TEXTS) -> list[Split]:
    """The split words that cost most tokens: occurrences × (tokens - 1).

    Args:
      measured: of the domain.
      general: of general text in the same language, if there is some. Then only words typical of the domain count: those
        at least `TYPICAL` times as frequent as there (both frequencies with half an occurrence added).
      most: how many.
      min_texts: only words that occur in so many texts, and that start with a letter.
    """
    typical = _typical(measured, general) if general else lambda _: True
    found = [split for split in _splits(measured)
             if split.texts >= min_texts and split.word[:1].isalpha() and typical(split.word)]
    return sorted(found, key=lambda split: (-split.cost, split.word, split.ids))[:most]


def _splits(measured: Measured) -> list[Split]:
    return [Split(readable(word.text), word.ids, *seen) for word, seen in measured.table.items()
            if len(word.ids) > 1 and is_word(word.text)]


def _typical(measured: Measured, general: Measured) -> Callable[[str], bool]:
    here, there = _forms(measured), _forms(general)
    shift = math.log(TYPICAL) + math.log(max(1, measured.totals.words) / max(1, general.totals.words))

    def typical(word: str) -> bool:
        form = _form(word)
        return math.log(here[form] + 0.5) - math.log(there[form] + 0.5) >= shift

    return typical


def overlap(one: Measured, other: Measured, words: int = OVERLAP_WORDS, stop_words: int = STOP_WORDS) -> float:
    """Share of the most frequent words that two corpora have in common (Gururangan et al. 2020, Figure 2).

    Args:
      words: so many of each, or as many as the smaller one has.
      stop_words: a word among so many most frequent of both corpora is left out of both.
    """
    ranked = [[word for word, _ in sorted(_forms(corpus).items(), key=lambda item: (-item[1], item[0])) if any(map(str.isalpha, word))]
              for corpus in (one, other)]
    stop = set(ranked[0][:stop_words]) & set(ranked[1][:stop_words])
    kept = [[word for word in corpus if word not in stop] for corpus in ranked]
    size = min(words, *map(len, kept))
    return len(set(kept[0][:size]) & set(kept[1][:size])) / size if size else 0.0


def _form(word: str) -> str:
    return word.lower()


def _forms(measured: Measured) -> Counter[str]:
    """Occurrences of the words without regard to case and to the space before them."""
    forms: Counter[str] = Counter()
    for word, seen in measured.table.items():
        if is_word(word.text):
            forms[_form(readable(word.text))] += seen.count
    return forms


def covered(measured: Measured, words: int, min_count: int = 1) -> float:
    """Share of all extra tokens (beyond one a word) that the `words` most costly split words account for.

    So much would go if these words were whole: a lower bound for as many well chosen tokens, as parts of words serve several.
    Words that occur fewer than `min_count` times are left split.
    """
    costs = sorted((split.cost for split in _splits(measured) if split.count >= min_count), reverse=True)
    return sum(costs[:words]) / max(1, measured.extra)
