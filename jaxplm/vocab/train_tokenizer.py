"""A tokenizer of the corpus's own: WordPiece, byte-level BPE or Unigram, written as transformers reads it."""

import json
import logging
import shutil
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from jaxplm.config import check_value
from jaxplm.errors import UserError
from jaxplm.hf.families import family_of
from jaxplm.vocab.counting import WordCounter
from jaxplm.vocab.languages import KOREAN, detect, set_rules
from jaxplm.vocab.unigram_scores import piece_scores

log = logging.getLogger("jaxplm")

# The model family whose special tokens a kind of tokenizer has; `jaxplm.hf.families` has the tokens and their ids.
FAMILIES = {"wordpiece": "bert", "bpe": "roberta", "unigram": "bert"}
_CLASSES = {"wordpiece": "BertTokenizer", "bpe": "RobertaTokenizer", "unigram": "PreTrainedTokenizerFast"}
_MIN_COUNT = 2  # of a character and of a pair that is merged
_MIN_ALPHABET = {"latin": 1000, "korean": 3000}  # Korean: the syllables that are written are some 2,500
_LONGEST_WORD = 200  # WordPiece, Korean: characters of a run without spaces; a longer one is [UNK]
_CHUNK = 10_000  # repetitions of a word handed over at once


def train_tokenizer(texts: Iterable[str], kind: str, size: int, directory: Path, *, language: str = "auto", cased: bool = False,
                    max_positions: int = 512) -> int:
    """Train a tokenizer and write its directory, which `transformers.AutoTokenizer` reads.

    wordpiece (Wu et al. 2016) and unigram (Kudo 2018) have BERT's special tokens; bpe (Sennrich et al. 2016, over bytes
    as in Radford et al. 2019) has RoBERTa's with RoBERTa's ids. The same texts give the same files. Memory is bounded,
    see `counting.MAX_WORDS`.

    Args:
      texts: read once.
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
        language, texts = _choose(texts)
    rules = Tokenizer(models.BPE())
    set_rules(rules, kind, language, cased)
    counter = WordCounter(rules)
    counter.add(texts)
    counter.finish()
    if counter.dropped_below:
        log.warning("vocabulary: too many distinct words to hold: those found %s were left out",
                    "once" if counter.dropped_below == 1 else f"{counter.dropped_below} times or less")
    if not counter.counts:
        raise UserError("no word to train a vocabulary on: the texts are empty")
    words = dict(sorted(counter.counts.items()))
    trained = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[kind](words, size, language, cased)
    set_rules(trained, kind, language, cased)
    _finish(trained, kind)
    _write(trained, kind, cased, max_positions, directory)
    if (entries := trained.get_vocab_size()) < size:
        log.warning("vocab.size=%d: the corpus fills only %d entries, which are used", size, entries)
    return entries


def _choose(texts: Iterable[str], sample: int = 1_000_000) -> tuple[str, Iterator[str]]:
    """The preset for the first `sample` characters, and all texts again."""
    whole = iter(texts)
    characters: Counter[str] = Counter()
    read: list[str] = []
    for text in whole:
        read.append(text)
        characters.update(text)
        if characters.total() >= sample:
            break
    language, share = detect(characters)
    log.info("vocab.language=auto: %s (Hangul is %.1f %% of the letters of the first %d texts)", language, 100 * share, len(read))

    def again() -> Iterator[str]:
        yield from read
        read.clear()
        yield from whole

    return language, again()


def _alphabet(words: dict[str, int], size: int, language: str) -> list[str]:
    """The characters that get an entry, the most frequent ones. A word with another one is not learned from."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            counts[char] += count
    limit = min(max(_MIN_ALPHABET[language], size // 4), size // 2)
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    return sorted(char for char in ranked[:limit] if counts[char] >= _MIN_COUNT)


def _basic(cased: bool) -> tuple[str, str]:
    """(letters and digits, punctuation) of ASCII: known whatever the corpus, so that "utf8" is never [UNK]."""
    return string.digits + (string.ascii_letters if cased else string.ascii_lowercase), string.punctuation


def _known(words: dict[str, int], alphabet: set[str]) -> dict[str, int]:
    return {word: count for word, count in words.items() if alphabet.issuperset(word)}


def _wordpiece(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    letters, punctuation = _basic(cased)
    first = set(_alphabet(words, size, language)) | set(letters + punctuation)
    words = _known(words, first)
    inside: Counter[str] = Counter()
    for word, count in words.items():
        for char in word[1:]:
            inside[char] += count
    inner = {char for char, count in inside.items() if count >= _MIN_COUNT} | set(letters)
    words = {word: count for word, count in words.items() if inner.issuperset(word[1:])}
    # The trainer numbers what continues a word in the order of a hash map with a random key, and ties are broken by
    # these numbers. Listed as special tokens, they have numbers beforehand; `models.WordPiece` below knows none of that.
    start = [*special_tokens("wordpiece"), *sorted(first), *("##" + char for char in sorted(inner))]
    if len(start) > size:
        raise UserError(f"vocab.size={size}: the characters of this corpus alone take {len(start)} entries; give more")
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=start, min_frequency=_MIN_COUNT, show_progress=False)
    longest = _LONGEST_WORD if language == KOREAN else 100
    vocabulary = _trained(models.WordPiece(unk_token="[UNK]"), trainer, words)["vocab"]  # pyright: ignore[reportCallIssue]
    return Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=longest))


def _bpe(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    del language, cased  # bytes are the alphabet
    letters, special = sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens("bpe")
    if size < len(letters) + len(special):
        raise UserError(f"vocab.size={size}: bytes and special tokens alone take {len(letters) + len(special)} entries; give more")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), min_frequency=_MIN_COUNT,
                                  initial_alphabet=letters, show_progress=False)
    state = _trained(models.BPE(), trainer, words)
    merges = [tuple(merge) for merge in state["merges"]]
    return Tokenizer(models.BPE(state["vocab"], merges, continuing_subword_prefix="", end_of_word_suffix=""))  # as RoBERTa


def _unigram(words: dict[str, int], size: int, language: str, cased: bool) -> Tokenizer:
    letters, punctuation = _basic(cased)
    special = special_tokens("unigram")
    alphabet = set(_alphabet(words, size, language)) | set(letters + punctuation) | {"\u2581"}
    if len(alphabet) + len(special) > size:
        raise UserError(f"vocab.size={size}: the characters of this corpus alone take"
                        f" {len(alphabet) + len(special)} entries; give more")
    words = _known(words, alphabet)
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=list(special), unk_token="[UNK]",
                                      initial_alphabet=sorted(alphabet), show_progress=False)
    found = [piece for piece, _ in _trained(models.Unigram(), trainer, words)["vocab"] if piece not in special]
    pieces = sorted({*found, *alphabet})
    # The trainer's scores differ from run to run by some hundredths, because it sums in the order of a hash map.
    scores = piece_scores(pieces, words)
    ranked = sorted(zip(pieces, scores, strict=True), key=lambda entry: (-entry[1], entry[0]))
    # Too many only where the trainer left out characters that never occur; characters stay.
    spare = len(special) + len(ranked) - size
    extra = {piece for piece, _ in [entry for entry in ranked if len(entry[0]) > 1][::-1][: max(0, spare)]}
    kept = [entry for entry in ranked if entry[0] not in extra]
    return Tokenizer(models.Unigram([*((token, 0.0) for token in special), *kept], unk_id=1))


def special_tokens(kind: str) -> tuple[str, ...]:
    """Return the special tokens of a kind of tokenizer in the order of their ids, which are 0, 1, ..."""
    return tuple(family_of(FAMILIES[kind]).special_tokens.values())


def _trained(model: Any, trainer: Any, words: dict[str, int]) -> dict[str, Any]:
    """The model part of tokenizer.json after training on words that are cut already; their spaces are marks by now."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]

    def repeated() -> Iterator[str]:
        for word, count in words.items():
            for begin in range(0, count, _CHUNK):
                yield f"{word} " * min(_CHUNK, count - begin)

    tokenizer.train_from_iterator(repeated(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def _finish(tokenizer: Tokenizer, kind: str) -> None:
    """Special tokens, what stands around a text or a pair, and the way back to text."""
    special = special_tokens(kind)
    # The mask takes the space before it along where that space is part of the token it stands for.
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True, lstrip=kind != "wordpiece" and "mask" in token.lower())
                                  for token in special])
    if kind == "bpe":
        cls, sep = ((special[i], i) for i in (0, 2))  # one token type, also of a pair
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        return
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    decoder = decoders.WordPiece() if kind == "wordpiece" else decoders.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoder  # pyright: ignore[reportAttributeAccessIssue]


def _write(tokenizer: Tokenizer, kind: str, cased: bool, max_positions: int, directory: Path) -> None:
    from transformers import AutoTokenizer  # seconds; see `hf.tokenizer`

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    if kind != "unigram":  # has no classic file short of the sentencepiece one
        tokenizer.model.save(str(directory))
    family = family_of(FAMILIES[kind])
    settings: dict[str, Any] = {f"{role}_token": token for role, token in family.special_tokens.items()}
    settings |= {f"{alias}_token": family.special_tokens[role] for alias, role in family.role_aliases.items()}
    settings |= {"model_max_length": max_positions, "tokenizer_class": _CLASSES[kind], "clean_up_tokenization_spaces": False}
    if kind == "wordpiece":
        settings |= {"do_lower_case": not cased, "strip_accents": False}
    if kind == "bpe":
        settings |= {"add_prefix_space": False}
    file = directory / "tokenizer_config.json"

    def write() -> None:
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")

    write()
    wanted = json.loads(tokenizer.to_str())
    # A class of transformers rebuilds normalizer and pre-tokenizer by its own rules. Where those are not ours, the
    # class that takes tokenizer.json as it stands is named instead.
    read = json.loads(AutoTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer.to_str())
    if any(read[part] != wanted[part] for part in ("normalizer", "pre_tokenizer", "model", "decoder")):
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        for option in ("do_lower_case", "strip_accents", "add_prefix_space"):
            settings.pop(option, None)
    if settings["tokenizer_class"] == "PreTrainedTokenizerFast":  # knows no model, so no inputs of one either
        settings["model_input_names"] = ["input_ids", *(["token_type_ids"] if family.token_types > 1 else []), "attention_mask"]
    write()
