"""Words cut with more entries, and which entries are chosen."""

import json

import checkpoints
import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxplm import hf
from jaxplm.errors import UserError
from jaxplm.vocab.choose import choose_tokens
from jaxplm.vocab.measure import measure, remeasure
from jaxplm.vocab.segment import segment_words
from jaxplm.vocab.terms import read_terms, term_words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def extended(tokenizer, tokens):
    """What appending comes to: entries in the model, and for BPE one merge for each at the end of the list."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    for token in tokens:
        if model["type"] == "BPE":
            pieces = [piece.value for piece in Tokenizer.from_str(json.dumps(state)).model.tokenize(token)]
            assert len(pieces) == 2, (token, pieces)
            model["merges"].append(pieces)
        assert token not in model["vocab"]
        model["vocab"][token] = len(model["vocab"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), unk_token=tokenizer.unk_token)


def wordpiece(entries, lowercase=True):
    """A BERT tokenizer of these entries, and letters of two alphabets."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789", *"가나다영화는의이재미있습니"]
    vocabulary = dict.fromkeys([*SPECIAL, ".", ",", "-", "%", *letters, *(f"##{letter}" for letter in letters), *entries])
    backend = Tokenizer(models.WordPiece({entry: i for i, entry in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


@pytest.fixture(scope="module")
def bert():
    return wordpiece(["the", "of", "##s", "##itis", "cat", "dog"])


@pytest.fixture(scope="module")
def gpt():
    return checkpoints.tokenizer("roberta")


def both(bert, gpt):
    return {"wordpiece": bert, "bpe": gpt}


WORD = st.text("abt가나", min_size=1, max_size=8)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORD, min_size=3, max_size=30), picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_words_are_cut_as_the_extended_tokenizer_cuts_them(kind, bert, gpt, words, picks):
    tokenizer = both(bert, gpt)[kind]
    texts = [" ".join(words)]
    table = list(measure(texts, tokenizer).table)
    cut = segment_words(tokenizer, table)
    added = []
    for pick in picks:
        pieces = cut.pieces[pick % len(table)]
        if len(pieces) < 2:
            continue
        begin = pick % (len(pieces) - 1)
        entry = cut.entry(pieces[begin : begin + 2 + pick % 6], begin == 0)
        if entry in cut or (effect := cut.effect(entry)) is None:
            continue
        assert all(cut.pieces[number] != new for number, new in effect.words.items())
        cut.accept(entry, effect)
        added += effect.added
    larger = extended(tokenizer, added)
    for word, pieces in zip(table, cut.pieces, strict=True):
        assert tuple(larger.backend_tokenizer.encode(word.text, add_special_tokens=False).tokens) == pieces, (word, added)


def test_an_entry_that_would_make_a_word_unreadable_is_not_taken():
    """The rest of "abxq" after "abx" would be "##q", which the vocabulary has only inside "##xq"."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "ab": 1, "##xq": 2, "##x": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    table = list(measure(["abxq abx"], tokenizer).table)
    cut = segment_words(tokenizer, table)
    assert cut.effect("abx") is None
    assert cut.effect("abxq").words == {0: ("abxq",)}


def test_the_entry_that_saves_most_comes_first(bert):
    texts = ["hepatitis of the cats"] * 9 + ["nephritis"] * 5 + ["the cat"] * 50
    chosen = choose_tokens(measure(texts, bert), bert, 2)
    assert chosen.tokens == ["hepatitis", "nephritis"]
    assert chosen.saved == [9 * 5, 5 * 5]  # five letters and ##itis each


def test_a_stem_beats_its_words(bert):
    """"neuro" serves four words of five texts each; a word of its own is left for what the stem leaves."""
    texts = [f"neuro{ending} the" for ending in ("logist", "pathy", "surgery", "genic") for _ in range(5)]
    chosen = choose_tokens(measure(texts, bert), bert, 1)
    assert chosen.tokens == ["neuro"] and chosen.saved == [20 * 4]


def test_a_part_must_serve_several_words_however_they_are_written(gpt):
    variants = ["zquorbl", " zquorbl", " Zquorbl", "(zquorbl", " ZQUORBL"]
    chosen = choose_tokens(measure(["x" + variant for variant in variants for _ in range(3)], gpt), gpt, 60)
    whole = {"zquorbl", "Ġzquorbl", "ĠZquorbl", "ĠZQUORBL", "xzquorbl"}
    assert {token for token, saved in zip(chosen.tokens, chosen.saved, strict=True) if saved} <= whole


def test_korean_endings_are_found():
    tokenizer = wordpiece(["재미", "영화"], lowercase=False)
    texts = [f"{stem}있습니다" for stem in ("재미", "영화", "나의", "다는", "가나") for _ in range(4)]
    chosen = choose_tokens(measure(texts, tokenizer), tokenizer, 1)
    assert chosen.tokens == ["##있습니다"] and chosen.saved == [60]


def test_savings_are_recomputed_when_another_entry_covers_a_part(bert):
    texts = ["cardiology"] * 20 + ["cardiologist"] * 18
    chosen = choose_tokens(measure(texts, bert), bert, 3)
    assert sum(chosen.saved) == sum(n * (len(word) - 1) for word, n in (("cardiology", 20), ("cardiologist", 18)))
    again = remeasure(measure(texts, bert), extended(bert, chosen.tokens))
    assert again.fertility == 1.0


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_promised_saving_is_the_real_one(kind, bert, gpt):
    tokenizer = both(bert, gpt)[kind]
    random = np.random.default_rng(3)
    stems, ends = (["".join(random.choice(list("abcdeilorst"), n)) for n in random.integers(2, 6, 60)] for _ in range(2))
    texts = [" ".join(random.choice(stems) + random.choice(ends[:12]) for _ in range(30)) for _ in range(60)]
    measured = measure(texts, tokenizer)
    chosen = choose_tokens(measured, tokenizer, 50, min_texts=1)
    assert len(chosen.tokens) == len(set(chosen.tokens)) == 50 and not set(chosen.tokens) & set(tokenizer.get_vocab())
    larger = extended(tokenizer, chosen.tokens)
    assert measured.totals.tokens - sum(chosen.saved) == measure(texts, larger).totals.tokens
    assert choose_tokens(measure(texts, tokenizer), tokenizer, 50, min_texts=1) == chosen
    shorter = choose_tokens(measured, tokenizer, 20, min_texts=1).tokens
    # No entry hangs on the limit, but for one whose steps (BPE) had no room any more.
    assert shorter[:15] == chosen.tokens[:15] and len(shorter) <= 20


def test_more_texts_weigh_more_than_more_occurrences(bert):
    texts = ["zebu " * 60, "zebu", "zebu"] + ["quoll"] * 30
    assert choose_tokens(measure(texts, bert), bert, 1).tokens == ["quoll"]


def test_numbers_one_text_words_and_ornaments_are_kept_out(bert):
    texts = ["123456 h1n1 aaaaaab 2nd kwilter kwilter" + " jgrbl" * 100] + ["123456 h1n1 aaaaaab 2nd h1n1"] * 9
    chosen = choose_tokens(measure(texts, bert), bert, 100)
    assert chosen.tokens == ["h1n1"]


@pytest.mark.parametrize("min_texts", [1, 3, 4])
def test_min_texts(bert, min_texts):
    assert (choose_tokens(measure(["quoll"] * 3, bert), bert, 1, min_texts=min_texts).tokens == ["quoll"]) == (min_texts <= 3)


def test_unknown_words_become_readable():
    tokenizer = wordpiece([], lowercase=False)
    chosen = choose_tokens(measure(["뷁"] * 5, tokenizer), tokenizer, 5)
    assert chosen.tokens == ["뷁"]
    assert remeasure(measure(["뷁"] * 5, tokenizer), extended(tokenizer, ["뷁"])).totals.unknown == 0


def test_terms_come_first_and_by_what_they_save(bert):
    texts = ["the quoll"] * 30 + ["beta of the blocker"] * 8 + ["zebu"] * 4
    chosen = choose_tokens(measure(texts, bert), bert, 5, terms=["Zebu", "beta-blocker", "the cat", "cat, dog", "5%", "okapi", "%"])
    assert chosen.tokens == ["blocker", "beta", "zebu", "okapi", "quoll"]
    assert chosen.wanted == 4 and chosen.known == ["the cat", "cat, dog"]
    assert chosen.refused == {"5%": "is cut into '5', '%'", "%": "has no letter or digit"}
    few = choose_tokens(measure(texts, bert), bert, 2, terms=["zebu", "beta-blocker"])
    assert few.tokens == ["blocker", "beta"] and few.wanted == 2


def test_a_term_that_no_token_can_hold_is_named(bert):
    long = "x" * 101  # WordPiece looks at 100 characters of a word
    chosen = choose_tokens(measure(["the"], bert), bert, 9, terms=[long, "okapi"])
    assert chosen.tokens == ["okapi"] and list(chosen.refused) == [long]


def test_byte_level_terms_start_with_a_space(gpt):
    found = term_words(["quoll zoo"], gpt)
    assert [word.text for word in found.words] == [" quoll", " zoo"]
    chosen = choose_tokens(measure(["a quoll"], gpt), gpt, 50, terms=["quoll zoo"])
    assert {"Ġquoll", "Ġzoo"} <= set(chosen.tokens[: chosen.wanted])
    larger = extended(gpt, chosen.tokens)
    assert larger.backend_tokenizer.encode("a quoll zoo", add_special_tokens=False).tokens[-2:] == ["Ġquoll", "Ġzoo"]


def test_terms_of_a_file(tmp_path):
    file = tmp_path / "terms.txt"
    file.write_text("heart attack\n\n  okapi \nheart attack\n", "utf-8")
    assert read_terms(str(file)) == ["heart attack", "okapi"]
    with refuses("vocab.terms=", "none.txt"):
        read_terms(str(tmp_path / "none.txt"))


def test_other_models_are_refused_in_one_line():
    tokenizer = checkpoints.tokenizer("camembert")
    with pytest.raises(UserError, match="Unigram") as caught:
        choose_tokens(measure(["the dog"], tokenizer), tokenizer, 5)
    assert "\n" not in str(caught.value)


def test_room_of_nothing(tmp_path):
    tokenizer = hf.load_tokenizer(helpers.wordpiece(tmp_path), "bert")[0]
    assert choose_tokens(measure(["quoll"] * 5, tokenizer), tokenizer, 0, terms=["okapi"]).tokens == []
