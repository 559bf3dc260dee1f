"""Whole words under every kind of tokenizer, each trained here on a few lines."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jaxplm.data.corpus import token_text, words

SENTENCES = [
    "the hospital, (COVID-19) patients don't pay $5.00... unbelievable words, words!",
    "아버지가 방에 들어가신다ㅋㅋ 너무 재미있어요!! 최고의 영화",
    "東京都のラーメンを食べました。とてもおいしいです。我爱北京天安门，很好",
    "สวัสดีครับ ผมชอบกินข้าว",
    "हिन्दी भाषा में लिखा हुआ",
    "cafe\u0301 re\u0301sume\u0301 naïve “quoted”—dash",
]
CORPUS = SENTENCES * 3


def fast(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", mask_token="[MASK]")


def train(model, trainer, size, *, pre, normalizer=None, decoder=None, **options):
    tokenizer = Tokenizer(model(unk_token="[UNK]") if model is models.WordPiece else model())
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder is not None:
        tokenizer.decoder = decoder
    options |= {"unk_token": "[UNK]"} if model is models.Unigram else {}
    special = ["[UNK]", "[MASK]"]
    tokenizer.train_from_iterator(
        CORPUS, trainer(vocab_size=size, special_tokens=special, show_progress=False, **options)
    )
    return fast(tokenizer)


@pytest.fixture(scope="module")
def tokenizers_by_kind():
    bert = pre_tokenizers.BertPreTokenizer()
    normal = normalizers.BertNormalizer(lowercase=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # A vocabulary of words whose pre-tokenizer calls a whole text one word.
    unsplit = train(models.Unigram, trainers.UnigramTrainer, 220, pre=pre_tokenizers.Metaspace())
    unsplit.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return {
        "wordpiece": train(models.WordPiece, trainers.WordPieceTrainer, 250, pre=bert, normalizer=normal),
        "wordpiece on spaces": train(
            models.WordPiece, trainers.WordPieceTrainer, 250, pre=pre_tokenizers.WhitespaceSplit()
        ),
        "bytes": train(
            models.BPE,
            trainers.BpeTrainer,
            300,
            pre=byte_level,
            decoder=decoders.ByteLevel(),
            initial_alphabet=alphabet,
        ),
        "unigram": train(models.Unigram, trainers.UnigramTrainer, 220, pre=pre_tokenizers.Metaspace()),
        "unigram whole lines": unsplit,
    }


KINDS = ["wordpiece", "wordpiece on spaces", "bytes", "unigram", "unigram whole lines"]


@pytest.mark.parametrize("kind", KINDS)
def test_punctuation_and_korean(tokenizers_by_kind, kind):
    tokenizer = tokenizers_by_kind[kind]
    expected = ["hospital", ",", "(", "COVID", "-", "19", ")"]
    assert words.split_words("hospital, (COVID-19)", tokenizer) == expected
    assert words.split_words("아버지가 방에 들어가신다ㅋㅋ", tokenizer) == [
        "아버지가",
        "방에",
        "들어가신다ㅋㅋ",
    ]
    assert words.split_words("unbelievable words, words!", tokenizer) == [
        "unbelievable",
        "words",
        ",",
        "words",
        "!",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_scripts_without_spaces(tokenizers_by_kind, kind):
    tokenizer = tokenizers_by_kind[kind]
    for text in (SENTENCES[2], SENTENCES[3]):
        found = words.split_words(text, tokenizer)
        assert "".join(found) == text.replace(" ", "")
        for word in found:
            bases = [c for c in word if not unicodedata.category(c).startswith("M")]
            assert len(bases) <= 7  # four, and what is left of the token that reaches over
        _, offsets, _, starts = starts_of(text, tokenizer)
        for (begin, end), (after, _), starts_word in zip(offsets, offsets[1:], starts[1:], strict=False):
            if (
                not starts_word and text[begin:end].strip() and after >= end
            ):  # else the script changes in a token
                assert _script(text[end - 1]) == _script(text[after])
        assert np.mean([len(word) for word in found]) < 5
    assert "。" in words.split_words(SENTENCES[2], tokenizer)


def _script(char):
    name = unicodedata.name(char).removeprefix("FULLWIDTH ")
    return "KATAKANA" if name.startswith("KATAKANA") else name.split()[0].split("-")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_words_with_marks_stay_whole(tokenizers_by_kind, kind):
    tokenizer = tokenizers_by_kind[kind]
    assert words.split_words(SENTENCES[4], tokenizer) == SENTENCES[4].split()
    assert words.split_words("cafe\u0301 re\u0301sume\u0301", tokenizer) == [
        "cafe\u0301",
        "re\u0301sume\u0301",
    ]


def test_special_tokens_in_the_text_are_words_of_their_own(tokenizers_by_kind):
    for kind in KINDS:
        assert "[MASK]" in words.split_words("the [MASK] patients", tokenizers_by_kind[kind])


def starts_of(text, tokenizer):
    backend = tokenizer.backend_tokenizer
    tables = words.word_tables(backend)
    encoding = backend.encode(text, add_special_tokens=False)
    ids, word_ids = words.encoding_arrays(encoding)
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    fast_starts = words.word_starts(ids, word_ids, tables)
    return encoding, offsets, fast_starts, words.refine(text, ids, word_ids, offsets, fast_starts, tables)


def test_a_byte_level_character_is_never_cut(tokenizers_by_kind):
    text = "漢 a€b ก็ 😀😀"  # all unseen in training: every byte is a token
    encoding, offsets, _, starts = starts_of(text, tokenizers_by_kind["bytes"])
    assert len(encoding.ids) > 20
    for i in np.flatnonzero(starts)[1:]:
        assert offsets[i, 0] >= offsets[i - 1, 1] or offsets[i, 0] == offsets[i, 1]
        assert not unicodedata.category(text[offsets[i, 0]]).startswith("M")


ALPHABET = st.sampled_from("ab,.(-)  \n'3é\u0301\u0308가나ㅋ東京のラーกำ็हिं😀€[▁Ġ#")


@example(text="\na", kind="unigram")  # to Metaspace a line break is no space but a character, here an unknown one: a separate word
@settings(max_examples=150, deadline=None)
@given(text=st.text(ALPHABET, min_size=1, max_size=30), kind=st.sampled_from(KINDS))
def test_any_text(tokenizers_by_kind, text, kind):
    encoding, offsets, fast_starts, starts = starts_of(text, tokenizers_by_kind[kind])
    if not encoding.ids:
        return
    assert starts[0] and len(starts) == len(encoding.ids)
    for i in np.flatnonzero(starts)[1:]:
        begin, end = offsets[i]
        if end > begin and not text[begin].isspace():
            assert begin >= offsets[:i, 1].max(), "cut inside a character"
            assert not unicodedata.category(text[begin]).startswith("M"), "a mark cut from its base"
    # Where nothing depends on the characters, both speeds agree.
    if not words._UNSPACED_OR_MARKS.search(text):
        np.testing.assert_array_equal(starts, fast_starts)
    for word_id in set(encoding.word_ids) - {None}:  # a space-separated word of letters stays whole
        tokens = [i for i, w in enumerate(encoding.word_ids) if w == word_id]
        span = text[offsets[tokens[0], 0] : offsets[tokens[-1], 1]].strip(" ")
        if span.isascii() and span.isalpha():
            assert not starts[tokens[1:]].any()


def test_punctuation_is_as_bert_has_it():
    assert all(words.is_punctuation(char) for char in "!$+<=>^`|~,.-—“”、。「」¿")
    assert not any(words.is_punctuation(char) for char in "a1 é가ㅋ東€™♥\u0301")


def test_byte_alphabet_is_the_one_of_byte_level_vocabularies():
    alphabet = token_text.byte_alphabet()
    assert sorted(alphabet) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    for text in ("é", "가", " \n"):
        encoded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][
            0
        ]
        assert bytes(alphabet[char] for char in encoded) == text.encode()


@pytest.mark.slow
@given(st.text(st.sampled_from("the hospital, 아버지가 들어가신다 東京都 cafe\u0301 ครับ ¼"), max_size=40))
@settings(max_examples=60)
def test_the_characters_of_a_texts_tokens_are_those_of_the_text(tokenizers_by_kind, text):
    for kind, tokenizer in tokenizers_by_kind.items():
        backend = tokenizer.backend_tokenizer
        encoding = backend.encode(text, add_special_tokens=False)
        if tokenizer.unk_token_id in encoding.ids:
            continue  # an unknown token stands for any number of characters, and counts none
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        found = token_text.token_characters(backend)[encoding.ids].sum()
        assert found == sum(not char.isspace() for char in normal), (kind, text)
    assert token_text.token_characters(backend)[tokenizer.mask_token_id] == 0
