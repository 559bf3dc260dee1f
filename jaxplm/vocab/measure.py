"""Measure how a tokenizer cuts the words of a corpus: fertility, unknown tokens, every distinct word.

A word is what whole-word masking takes for one (`jaxplm.data.corpus.words`). In scripts with spaces it is what stands
between spaces, with punctuation split off. In Korean that is the eojeol: a stem with its particles and endings. Words
have a letter or a digit; punctuation and signs count as tokens only. Characters and bytes are counted without white
space.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from jaxplm.errors import UserError
from jaxplm.vocab.piece_counts import MAX_WORDS, Occurrences, PieceCounter, Totals, Word, is_word, word_totals

_BATCH = 8192  # words tokenized at once


@dataclass
class Measurement:
    """Counts over the words of texts and their tokens, by one tokenizer.

    Attributes:
      texts, characters, bytes: of what was read; characters and UTF-8 bytes without white space.
      totals: sums over all tokens and words.
      lengths: {tokens of a word: occurrences of such words}.
      table: every distinct word. If `left_out` > 0, that many rare ones are missing (see `piece_counts.PieceCounter`).
      unknown_id: id of the unknown token, if there is one.
    """

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    totals: Totals = Totals()
    lengths: Counter[int] = field(default_factory=Counter)
    table: dict[Word, Occurrences] = field(default_factory=dict)
    left_out: int = 0
    unknown_id: int | None = None

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al. 2021)."""
        return self.totals.word_tokens / max(1, self.totals.words)

    @property
    def extra(self) -> int:
        """Tokens beyond one per word: what splitting costs."""
        return self.totals.word_tokens - self.totals.words

    @property
    def tokens_per_character(self) -> float:
        return self.totals.tokens / max(1, self.characters)

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / max(1, self.totals.tokens)

    @property
    def unknown_share(self) -> float:
        """Share of the unknown token among all tokens."""
        return self.totals.unknown / max(1, self.totals.tokens)

    @property
    def whole_share(self) -> float:
        """Share of words, counted as often as they occur, that are one known token."""
        return self.totals.whole / max(1, self.totals.words)

    @property
    def whole_distinct_share(self) -> float:
        """Share of distinct words, each counted once, that are one known token.

        Rare words that left the table are missing.
        """
        words = [word for word in self.table if is_word(word.text)]
        return sum(len(word.ids) == 1 and word.ids[0] != self.unknown_id for word in words) / max(1, len(words))


def measure(texts: Iterable[str], tokenizer: Any, *, max_words: int = MAX_WORDS) -> Measurement:
    """Count the words of texts and the tokens they are cut into, in one pass.

    Memory is bounded by `max_words`. Nearly all of the time goes into counting and into tokenizing the distinct words.

    Args:
      texts: stripped texts, such as `jaxplm.data.sources.texts.open_texts` yields.
      tokenizer: a fast transformers tokenizer of any model (WordPiece, BPE, Unigram).
      max_words: distinct words to keep; the sums over all words are exact in any case.

    Raises:
      UserError: the texts have no word.
    """
    counter = PieceCounter(tokenizer, max_words)
    counter.add(texts)
    totals, lengths = counter.totals()
    if not totals.words:
        raise UserError(f"no word in {counter.texts} texts: nothing to measure a vocabulary on")
    return Measurement(
        counter.texts,
        counter.characters,
        counter.bytes,
        totals,
        lengths,
        counter.table(),
        counter.left_out,
        tokenizer.unk_token_id,
    )


def remeasure(measurement: Measurement, tokenizer: Any) -> Measurement:
    """Return the measurement of the same texts by a tokenizer that differs in its vocabulary alone.

    The texts are not read again.

    Every word of the table is tokenized again. Rare words that left the table keep their old tokens in the sums.
    """
    words = [word for word in measurement.table if word.text]
    sums, lengths = list(measurement.totals), Counter(measurement.lengths)
    table = {word: occurrences for word, occurrences in measurement.table.items() if not word.text}
    for at in range(0, len(words), _BATCH):
        batch = words[at : at + _BATCH]
        encodings = tokenizer.backend_tokenizer.encode_batch([word.text for word in batch], add_special_tokens=False)
        for old, encoding in zip(batch, encodings, strict=True):
            new, occurrences = Word(old.text, tuple(encoding.ids)), measurement.table[old]
            before = table.get(new, Occurrences(0, 0))
            table[new] = Occurrences(before.count + occurrences.count, before.texts + occurrences.texts)
            for word, signed_count in ((old, -occurrences.count), (new, occurrences.count)):
                one = word_totals(word, measurement.unknown_id)
                sums = [total + signed_count * value for total, value in zip(sums, one, strict=True)]
                if is_word(word.text):
                    lengths[len(word.ids)] += signed_count
    return replace(measurement, totals=Totals(*sums), lengths=+lengths, table=table)
