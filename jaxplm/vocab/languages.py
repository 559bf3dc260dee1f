"""Rules by which a language's text is normalised and cut into words before a vocabulary is trained on it.

latin: for scripts written with spaces. WordPiece has BERT's own rules, byte-level BPE has GPT-2's and RoBERTa's, so
that transformers' classes for them apply. Accents stay, because stripping them takes Hangul apart as well.

korean: Hangul stays composed. The form is NFC, never NFKC: NFKC turns the ㅋ of ㅋㅋㅋ into the first half of a syllable,
which joins with the vowel that follows. All that NFKC would gain is full-width signs, which made up 9 in a million
characters of 590,000 film reviews. A sign or a lone letter of Hangul stands at most `RUN` times in a row: without that,
118 of 16,000 entries are runs such as ㅋㅋㅋㅋ and ......., and 39 with it. Hangul, lone letters, Latin, numbers and runs
of one sign are words of their own ("OST도" = OST + 도, "굿ㅋㅋ" = 굿 + ㅋㅋ); the trainer's pieces separate endings. Measured
on these reviews with WordPiece of 16,000: 1.960 tokens per word; 2.057 with every sign alone, 1.969 with every digit
alone.
"""

from collections.abc import Mapping

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

LATIN, KOREAN = "latin", "korean"
RUN = 3
_HANGUL_SHARE = 0.2  # of the letters: Korean papers with much English have more, English papers about Korean have less

_LONG_RUN = Regex(r"([\u3131-\u318e\p{P}\p{S}])(?=\1{" + str(RUN) + "})")
# {0}: what may stand before a word, the mark of a space.
_KOREAN_WORD = (r"{0}[\uac00-\ud7a3]+|{0}[\u1100-\u11ff\u3131-\u318e]+|{0}\p{{Latin}}[\p{{Latin}}\p{{M}}]*|{0}\p{{N}}+"
                r"|{0}([\p{{P}}\p{{S}}])\1*")
_LATIN_WORD = r"{0}\p{{L}}[\p{{L}}\p{{M}}]*|{0}\p{{N}}+|{0}[^\s\p{{L}}\p{{N}}\u2581]+"


def detect(characters: Mapping[str, int]) -> tuple[str, float]:
    """Return the language of a text with these counts of characters, and Hangul's share of its letters."""
    letters = sum(count for char, count in characters.items() if char.isalpha())
    hangul = sum(count for char, count in characters.items() if is_hangul(char))
    share = hangul / max(1, letters)
    return (KOREAN if share >= _HANGUL_SHARE else LATIN), share


def is_hangul(char: str) -> bool:
    """Return whether a character is a syllable or a letter of Hangul, composed or not."""
    return "\uac00" <= char <= "\ud7a3" or "\u3131" <= char <= "\u318e" or "\u1100" <= char <= "\u11ff"


def set_rules(tokenizer: Tokenizer, kind: str, language: str, cased: bool) -> None:
    """Set normalizer and pre-tokenizer for `vocab.kind`, `vocab.language` (not auto) and `vocab.cased`."""
    normalizer, pre_tokenizer = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[kind](language, cased)
    if normalizer is not None:
        tokenizer.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def _clean(cased: bool, han: bool) -> normalizers.Normalizer:
    """Return BERT's cleaning: no control characters, white space as spaces.

    With `han`, spaces are put around each Chinese character.
    """
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=han, strip_accents=False, lowercase=not cased
    )


def _split(pattern: str, before: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern.format(before)), behavior="isolated")


def _wordpiece(language: str, cased: bool) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    clean = _clean(cased, han=True)
    if language == LATIN:
        return clean, pre_tokenizers.BertPreTokenizer()
    return (normalizers.Sequence([normalizers.NFC(), clean, normalizers.Replace(_LONG_RUN, "")]),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), _split(_KOREAN_WORD, "")]))


def _bpe(language: str, cased: bool) -> tuple[normalizers.Normalizer | None, pre_tokenizers.PreTokenizer]:
    """Return GPT-2's rules, which leave cased Latin text unchanged: every text is decoded as it was."""
    steps: list[normalizers.Normalizer] = [] if cased else [normalizers.Lowercase()]
    if language == LATIN:
        return steps[0] if steps else None, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    spaces = r"|\s+(?!\S)|\s+"
    return (normalizers.Sequence([normalizers.NFC(), *steps, normalizers.Replace(_LONG_RUN, "")]),
            pre_tokenizers.Sequence([_split(_KOREAN_WORD + spaces, " ?"),
                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def _unigram(language: str, cased: bool) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    cut = [normalizers.Replace(_LONG_RUN, "")] if language == KOREAN else []
    # A space on the left stays: the text after [MASK] is normalised by itself, and its first word has a space before
    # it.
    one_space = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False, right=True)]
    word = _KOREAN_WORD if language == KOREAN else _LATIN_WORD
    # "first": the rest of a word after [MASK] must not look like the beginning of a word.
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    return (normalizers.Sequence([normalizers.NFC(), _clean(cased, han=False), *cut, *one_space]),
            pre_tokenizers.Sequence([metaspace, _split(word, "\u2581?")]))
