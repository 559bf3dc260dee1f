"""Tokens appended to a tokenizer's model: old ids stay, new ones come out, stock transformers agrees."""

import functools
import json
import random

import checkpoints
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from jaxplm.errors import UserError
from jaxplm.hf.tokenizer import save_tokenizer
from jaxplm.vocab.append import append_tokens
from jaxplm.vocab.merges import Merges
from jaxplm.vocab.reach import witness

TEXTS = ("the quick brown fox jumps over the lazy dogs and the dogged foxes", "읽는 아버지가방에 들어가신다. 영화가 재미있다",
         "a model's language-model, modelling texts of domains; the domainal (thex) read-text 12")
BERT_WORDS = ["quickly", "##ing", "dogs", "jumped", "아버지", "##지가", "domains", "##ped", "jumpx", "ext"]
BPE_WORDS = ["Ġquickly", "Ġfoxes", "Ġlanguages", "modelling", "Ġjumpsuit", "asdf", "ĠìķĦë²ĦìĦ", "Ġdogs", "Ġqqq", "aaaaa", "Ġdogsdogs"]


@functools.cache
def case(family):
    """A tokenizer and what `append` makes of it."""
    tokenizer = checkpoints.tokenizer(family)
    return tokenizer, append_tokens(tokenizer, BPE_WORDS if family == "roberta" else BERT_WORDS)


def ids(tokenizer, text):
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


FAMILIES = ("bert", "klue", "roberta")
texts = st.text(max_size=30) | st.lists(st.sampled_from([*" ".join(TEXTS).split(), "quickly", "dogsdogs", "foxes", "ing", "q", "aa", "x"]),
                                        max_size=8).map(" ".join) | st.text(st.sampled_from("adefgijklmnopqstuxy 아버지가"), max_size=25)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_text_without_new_tokens_has_exactly_the_old_ids(family, text):
    tokenizer, appended = case(family)
    new, old = ids(appended.tokenizer, text), ids(tokenizer, text)
    if all(index < appended.old_size for index in new):
        assert new == old
    assert new.count(tokenizer.unk_token_id) <= old.count(tokenizer.unk_token_id)
    if family == "roberta":  # with its new tokens taken apart again, any text has its old ids
        old_size, pieces = appended.old_size, appended.pieces
        assert [part for index in new for part in (pieces[index - old_size] if index >= old_size else [index])] == old


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_old_ids_decode_as_before(family, data):
    tokenizer, appended = case(family)
    chosen = data.draw(st.lists(st.integers(0, appended.old_size - 1), max_size=12))
    assert appended.tokenizer.decode(chosen) == tokenizer.decode(chosen)
    assert appended.tokenizer.convert_ids_to_tokens(chosen) == tokenizer.convert_ids_to_tokens(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_words_are_appended_and_come_out(family, data):
    """Words of random letters: those in the vocabulary are reported, all others are tokens where they stand alone."""
    tokenizer, _ = case(family)
    letters = sorted(set("".join(TEXTS)) - set(" .,;()-'")) if family != "roberta" else [*"aeinostxyz", "é", "가", "読"]
    words = data.draw(st.lists(st.text(st.sampled_from(letters), min_size=2, max_size=9).filter(lambda w: w.isalpha()), max_size=6))
    entries = words
    if family == "roberta":
        entries = [tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(" " + word)[0][0] for word in words]
    appended = append_tokens(tokenizer, entries)
    assert set(appended.refused.values()) <= {"is in the vocabulary already"}
    assert appended.refused.keys() == set(entries) & tokenizer.get_vocab().keys()
    assert [token for token in appended.tokens if token not in appended.helpers] == [
        token for token in appended.tokens if token in set(entries)]
    for word, entry in zip(words, entries, strict=True):
        assert appended.tokenizer.tokenize(" " + word) == [entry]
    for i, token in enumerate(appended.tokens):
        assert appended.tokenizer.convert_tokens_to_ids(token) == appended.old_size + i
        old = tokenizer.convert_ids_to_tokens(appended.pieces[i])
        if old != [tokenizer.unk_token]:
            assert old[0] + "".join(piece.removeprefix("##") for piece in old[1:]) == token
        if entries and token in entries:
            assert appended.pieces[i] == ids(tokenizer, " " + words[entries.index(token)])
    assert appended.merges >= len(appended.tokens) if family == "roberta" else appended.merges == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_else_changes(family):
    tokenizer, appended = case(family)
    assert appended.refused == {}
    before, after = (json.loads(t.backend_tokenizer.to_str()) for t in (tokenizer, appended.tokenizer))
    old, new = before.pop("model"), after.pop("model")
    assert before == after  # added tokens, normalizer, pre-tokenizer, post-processor, decoder
    assert {token: new["vocab"][token] for token in old["vocab"]} == old["vocab"]
    assert list(new["vocab"].values()) == list(range(len(old["vocab"]) + len(appended.tokens)))
    assert [token for token in new["vocab"] if token not in old["vocab"]] == appended.tokens
    if family == "roberta":
        assert new["merges"][: len(old["merges"])] == old["merges"]
        assert len(new["merges"]) == len(old["merges"]) + appended.merges
    assert appended.tokenizer.special_tokens_map == tokenizer.special_tokens_map
    assert appended.tokenizer.all_special_ids == tokenizer.all_special_ids
    assert len(appended.tokenizer) == len(tokenizer) + len(appended.tokens)
    assert tokenizer.get_vocab().keys().isdisjoint(appended.tokens)  # the one given is as it was
    assert all(witness(appended.tokenizer, token) is not None for token in appended.tokens if token not in appended.helpers)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_reads_the_export_alike(family, tmp_path):
    _, appended = case(family)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta" if family == "roberta" else "bert"}))
    with checkpoints.listening() as heard:
        save_tokenizer(appended.tokenizer, tmp_path, 64)
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert heard == []
    assert stock.backend_tokenizer.to_str() == appended.tokenizer.backend_tokenizer.to_str()
    assert [stock(text)["input_ids"] for text in TEXTS] == [appended.tokenizer(text)["input_ids"] for text in TEXTS]
    assert stock("quickly", "dogs") == appended.tokenizer("quickly", "dogs")
    if family == "roberta":
        assert json.loads((tmp_path / "vocab.json").read_text("utf-8"))[appended.tokens[-1]] == len(stock) - 1
        assert (tmp_path / "merges.txt").read_text("utf-8").split("\n")[-2].replace(" ", "") in appended.tokens
        classic = transformers.RobertaTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    else:
        assert (tmp_path / "vocab.txt").read_text("utf-8").split("\n")[-len(appended.tokens) - 1 : -1] == appended.tokens
        classic = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False)
    assert [classic(text)["input_ids"] for text in TEXTS] == [stock(text)["input_ids"] for text in TEXTS]


def test_what_is_told():
    tokenizer, _ = case("bert")
    appended = append_tokens(tokenizer, ["dog", "quickly", "95%", "quickly", "##-2", "[SEP]", "dogs"])
    assert appended.tokens == ["quickly", "dogs"]
    assert appended.refused == {"dog": "is in the vocabulary already", "95%": "is cut into '95', '%'", "##-2": "is cut into '-', '2'",
                                "[SEP]": "is in the vocabulary already"}
    nothing = append_tokens(tokenizer, [])
    assert (nothing.tokens, nothing.pieces, nothing.refused) == ([], [], {})
    assert nothing.tokenizer.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_an_unknown_word_stood_for_the_unknown_token():
    tokenizer, _ = case("bert")
    assert append_tokens(tokenizer, ["쇼핑", "##쇼"]).pieces == [[tokenizer.unk_token_id]] * 2


def letters_bpe(merges, extra=()):
    """A byte-level BPE of the bytes and some merges."""
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    for token in extra:
        vocabulary[token] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_bpe_takes_the_rarest_pair_first_or_one_that_is_asked_for():
    tokenizer = letters_bpe([("a", "b"), ("y", "z")])  # rarity by id: a < ab < yz
    assert append_tokens(tokenizer, ["ayzc"]).tokens == ["yzc", "ayzc"]
    assert append_tokens(tokenizer, ["ayzc", "ayz"]).tokens == ["ayz", "ayzc"]
    assert append_tokens(tokenizer, ["ayz", "ayzc"]).tokens == ["ayz", "ayzc"]
    both = append_tokens(tokenizer, ["ayzc", "ayz"])
    assert (both.helpers, both.merges) == ([], 2)
    assert [tokenizer.convert_ids_to_tokens(pieces) for pieces in both.pieces] == [["a", "yz"], ["a", "yz", "c"]]


def test_bpe_never_makes_an_old_entry_again():
    """"xyz" is an entry that its letters never form; a merge to it would change "xyzq" and give no new id."""
    tokenizer = letters_bpe([("y", "z")], extra=["xyz"])
    assert tokenizer.tokenize("xyzw") == ["x", "yz", "w"]
    appended = append_tokens(tokenizer, ["xyzw"])
    assert appended.tokens == ["yzw", "xyzw"]
    assert appended.tokenizer.tokenize("xyzq") == ["x", "yz", "q"]
    both = letters_bpe([("y", "z")], extra=["xyz", "yzw"])
    [(token, reason)] = append_tokens(both, ["xyzw"]).refused.items()
    assert token == "xyzw" and "'xyz'" in reason
    assert append_tokens(both, ["xyzw", "yzq"]).tokens == ["yzq"]


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text("abc", min_size=2, max_size=9), min_size=1, max_size=8, unique=True), text=st.text("abc", max_size=30))
def test_bpe_of_few_letters_is_cut_as_foreseen(words, text):
    """Overlaps and repetitions everywhere: the model does what the bookkeeping says, and old ids stay."""
    tokenizer = letters_bpe([("a", "b"), ("b", "c"), ("ab", "ab")])
    appended = append_tokens(tokenizer, words)
    merges = Merges(tokenizer.backend_tokenizer.model, tokenizer.get_vocab(), len(tokenizer))
    for word in words:
        if word not in tokenizer.get_vocab():
            assert merges.form(word, word, 0, words) is None
            assert appended.tokenizer.tokenize(word) == [word]
    assert list(merges.ids) == appended.tokens
    for word in [text, *words]:
        assert appended.tokenizer.tokenize(word) == merges.cut(word)
        assert [part for token in merges.cut(word) for part in merges.pieces.get(token, [token])] == tokenizer.tokenize(word)


def test_a_word_that_was_known_never_becomes_unknown():
    """Without "##d" the longest match "abc" would leave "abcd" unreadable."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "##cd", "##e"]
    tokenizer = transformers.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})
    appended = append_tokens(tokenizer, ["abc"])
    assert appended.tokenizer.tokenize("abcd") == ["abc", "##d"]
    assert appended.helpers == ["##b", "##c", "##d"] and appended.tokens == ["##b", "##c", "##d", "abc"]
    assert appended.tokenizer.tokenize("abcde abe") == ["abc", "##d", "##e", "ab", "##e"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_added_tokens_beyond_the_model_keep_their_ids(family, tmp_path):
    tokenizer = checkpoints.tokenizer(family)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>"]})
    tokenizer.add_tokens(["zzqq", AddedToken("<one>", single_word=True)])
    before = [tokenizer(text)["input_ids"] for text in ("the <user> zzqq <one>", "thezzqq")]
    appended = append_tokens(tokenizer, BPE_WORDS if family == "roberta" else BERT_WORDS)
    assert appended.old_size == len(tokenizer)
    assert [appended.tokenizer(text)["input_ids"] for text in ("the <user> zzqq <one>", "thezzqq")] == before
    assert min(appended.tokenizer.convert_tokens_to_ids(appended.tokens)) == len(tokenizer)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    save_tokenizer(appended.tokenizer, tmp_path, 64)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert stock.get_vocab() == appended.tokenizer.get_vocab()


@pytest.mark.parametrize("added", [AddedToken("dogg", single_word=True), AddedToken("##zy", normalized=True)])
def test_added_tokens_that_the_model_would_find_are_refused(added):
    tokenizer = checkpoints.tokenizer("bert")
    tokenizer.add_tokens([added])
    with refuses(f"'{added.content}'", "vocabulary"):
        append_tokens(tokenizer, ["quickly"])


def test_vocabulary_with_a_gap(tmp_path):
    """New ids follow the largest one, not the number of entries."""
    tokens = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5, "##b": 9}
    tokenizer = transformers.BertTokenizer(vocab=tokens)
    appended = append_tokens(tokenizer, ["ab"])
    assert (appended.old_size, appended.pieces) == (10, [[5, 9]])
    assert ids(appended.tokenizer, "ab a") == [10, 5]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    save_tokenizer(appended.tokenizer, tmp_path, 64)
    assert ids(transformers.AutoTokenizer.from_pretrained(tmp_path), "ab a") == [10, 5]


def test_the_same_every_time():
    tokenizer = checkpoints.tokenizer("roberta")
    again = append_tokens(tokenizer, BPE_WORDS)
    _, first = case("roberta")
    assert (again.tokens, again.pieces) == (first.tokens, first.pieces)
    assert again.tokenizer.backend_tokenizer.to_str() == first.tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("family", ["xlm-roberta", "camembert"])
def test_unigram_is_refused_in_one_line(family):
    with pytest.raises(UserError) as caught:
        append_tokens(checkpoints.tokenizer(family), ["word"])
    assert "\n" not in str(caught.value) and "Unigram" in str(caught.value)


def test_thousands_of_tokens_are_no_added_tokens():
    tokenizer = checkpoints.tokenizer("bert")
    numbers = random.Random(0)
    words = ["".join(numbers.choices("abcdefghiklmnoprstuvwxyz", k=7)) for _ in range(5000)]
    appended = append_tokens(tokenizer, words)
    assert len(appended.tokens) == len(set(words))
    assert len(appended.tokenizer.added_tokens_decoder) == len(tokenizer.added_tokens_decoder)
    assert appended.tokenizer.tokenize(" ".join(words[::50])) == words[::50]
