"""Train a tokenizer on a corpus: WordPiece, byte-level BPE or Unigram. The same texts give the same files."""

import json
import logging
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxplm.config import check_value
from jaxplm.errors import UserError
from jaxplm.vocab.languages import KOREAN, detect, set_rules
from jaxplm.vocab.tokenizer_files import add_special_tokens, special_tokens, write_tokenizer
from jaxplm.vocab.unigram_scores import piece_scores
from jaxplm.vocab.word_counts import WordCounter

log = logging.getLogger("jaxplm")

_MIN_COUNT = 2  # occurrences that a character or a merged pair must have
_MIN_ALPHABET = {"latin": 1000, "korean": 3000}  # about 2,500 syllables are in use in Korean
_LONGEST_WORD = 200  # WordPiece, Korean: characters of a run without spaces; a longer one is [UNK]
_CHUNK = 10_000  # repetitions of a word given to a trainer at once


def train_tokenizer(
    texts: Iterable[str],
    kind: str,
    size: int,
    directory: Path,
    *,
    language: str = "auto",
    cased: bool = False,
    max_positions: int = 512,
) -> int:
    """Train a tokenizer and write its directory, which `transformers.AutoTokenizer` reads.

    wordpiece (Wu et al. 2016) and unigram (Kudo 2018) have BERT's special tokens. bpe (Sennrich et al. 2016, over bytes
    as in Radford et al. 2019) has RoBERTa's special tokens with RoBERTa's ids. Memory is bounded, see
    `word_counts.MAX_WORDS`.

    Args:
      texts: read once.
      kind: as `vocab.kind`: wordpiece, bpe or unigram.
      size: entries at most, special tokens included. A corpus that cannot fill it gives fewer, and the log says so.
      directory: replaced; holds tokenizer.json, tokenizer_config.json and the classic files of the kind.
      language: latin, korean, or auto: korean where a fifth of the letters are Hangul; the log says which.
      cased: False: the tokenizer lower-cases.
      max_positions: tokens of a text at most (`model_max_length`).

    Returns:
      The number of entries.

    Raises:
      UserError: an unknown kind or language, no words, or `size` too small for the characters.
    """
    check_value("vocab.kind", kind)
    check_value("vocab.language", language)
    if language == "auto":
        language, texts = _detect_language(texts)
    rules = Tokenizer(models.BPE())
    set_rules(rules, kind, language, cased)
    counter = WordCounter(rules)
    counter.add(texts)
    counter.finish()
    if counter.dropped_below:
        log.warning("vocabulary: too many distinct words to keep: words that occur %s were left out",
                    "once" if counter.dropped_below == 1 else f"{counter.dropped_below} times or less")
    if not counter.counts:
        raise UserError("no word to train a vocabulary on: the texts are empty")
    words = dict(sorted(counter.counts.items()))
    trained = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[kind](words, size, language, cased)
    set_rules(trained, kind, language, cased)
    add_special_tokens(trained, kind)
    write_tokenizer(trained, kind, cased, max_positions, directory)
    if (entries := trained.get_vocab_size()) < size:
        log.warning("vocab.size=%d: the corpus fills only %d entries, which are used", size, entries)
    return entries


def _detect_language(texts: Iterable[str], sample: int = 1_000_000) -> tuple[str, Iterator[str]]:
    """Return the language by the first `sample` characters, and all texts, those included."""
    remaining = iter(texts)
    characters: Counter[str] = Counter()
    read: list[str] = []
    for text in remaining:
        read.append(text)
        characters.update(text)
        if characters.total() >= sample:
            break
    language, share = detect(characters)
    log.info(
        "vocab.language=auto: %s (Hangul is %.1f %% of the letters of the first %d texts)",
        language,
        100 * share,
        len(read),
    )

    def all_texts() -> Iterator[str]:
        yield from read
        read.clear()
        yield from remaining

    return language, all_texts()


def _alphabet(words: dict[str, int], size: int, language: str) -> list[str]:
    """Return the characters that get an entry, the most frequent ones.

    Words with other characters are not trained on.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            counts[char] += count
    limit = min(max(_MIN_ALPHABET[language], size // 4), size // 2)
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    return sorted(char for char in ranked[:limit] if counts[char] >= _MIN_COUNT)


def _ascii(cased: bool) -> tuple[str, str]:
    """Return ASCII's letters and digits, and its punctuation.

    They get entries whatever the corpus, so that "utf8" is never [UNK].
    """
    return string.digits + (string.ascii_letters if cased else string.ascii_lowercase), string.punctuation


def _within(words: dict[str, int], alphabet: set[str]) -> dict[str, int]:
    """Return the words that are written in the alphabet."""
    return {word: count for word, count in words.items() if alphabet.issuperset(word)}


def _wordpiece(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    letters, punctuation = _ascii(cased)
    first = set(_alphabet(words, size, language)) | set(letters + punctuation)
    words = _within(words, first)
    inside: Counter[str] = Counter()
    for word, count in words.items():
        for char in word[1:]:
            inside[char] += count
    inner = {char for char, count in inside.items() if count >= _MIN_COUNT} | set(letters)
    words = {word: count for word, count in words.items() if inner.issuperset(word[1:])}
    # The trainer numbers what continues a word in the order of a hash map with a random key, and breaks ties by these
    # numbers. Listed as special tokens, they have numbers beforehand. `models.WordPiece` below does not know that they
    # were.
    start = [*special_tokens("wordpiece"), *sorted(first), *("##" + char for char in sorted(inner))]
    if len(start) > size:
        raise UserError(f"vocab.size={size}: the characters of this corpus alone take {len(start)} entries; give more")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=start, min_frequency=_MIN_COUNT, show_progress=False
    )
    longest = _LONGEST_WORD if language == KOREAN else 100
    vocabulary = _trained(models.WordPiece(unk_token="[UNK]"), trainer, words)["vocab"]  # pyright: ignore[reportCallIssue]
    return Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=longest))


def _bpe(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    del language, cased  # the alphabet is that of bytes
    letters, special = sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens("bpe")
    if size < len(letters) + len(special):
        raise UserError(
            f"vocab.size={size}: bytes and special tokens alone take {len(letters) + len(special)} entries; give more"
        )
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), min_frequency=_MIN_COUNT,
                                  initial_alphabet=letters, show_progress=False)
    state = _trained(models.BPE(), trainer, words)
    merges = [tuple(merge) for merge in state["merges"]]
    return Tokenizer(
        models.BPE(state["vocab"], merges, continuing_subword_prefix="", end_of_word_suffix="")
    )  # as RoBERTa


def _unigram(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    letters, punctuation = _ascii(cased)
    special = special_tokens("unigram")
    alphabet = set(_alphabet(words, size, language)) | set(letters + punctuation) | {"\u2581"}
    if len(alphabet) + len(special) > size:
        raise UserError(f"vocab.size={size}: the characters of this corpus alone take"
                        f" {len(alphabet) + len(special)} entries; give more")
    words = _within(words, alphabet)
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=list(special), unk_token="[UNK]",
                                      initial_alphabet=sorted(alphabet), show_progress=False)
    learned = [piece for piece, _ in _trained(models.Unigram(), trainer, words)["vocab"] if piece not in special]
    pieces = sorted({*learned, *alphabet})
    # The trainer's own scores differ between runs by some hundredths, because it sums in the order of a hash map.
    scores = piece_scores(pieces, words)
    ranked = sorted(zip(pieces, scores, strict=True), key=lambda entry: (-entry[1], entry[0]))
    # There are too many only if the trainer left out characters that never occur. Characters are kept, longer pieces
    # make room.
    too_many = len(special) + len(ranked) - size
    dropped = {piece for piece, _ in [entry for entry in ranked if len(entry[0]) > 1][::-1][: max(0, too_many)]}
    kept = [entry for entry in ranked if entry[0] not in dropped]
    return Tokenizer(models.Unigram([*((token, 0.0) for token in special), *kept], unk_id=1))


def _trained(model: Any, trainer: Any, words: dict[str, int]) -> dict[str, Any]:
    """Return the model part of tokenizer.json after training on words.

    They are cut already, and have marks in place of spaces.
    """
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]

    def repeated() -> Iterator[str]:
        for word, count in words.items():
            for begin in range(0, count, _CHUNK):
                yield f"{word} " * min(_CHUNK, count - begin)

    tokenizer.train_from_iterator(repeated(), trainer)
    return json.loads(tokenizer.to_str())["model"]
