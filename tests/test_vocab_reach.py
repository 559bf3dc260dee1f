"""Which entries of a vocabulary can be reached: the tokenizer's own word against the verdict."""

import json

import checkpoints
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxplm.vocab.append import append_tokens
from jaxplm.vocab.reach import Reach, witness

LETTERS = "abnstzß1²-.'%#éÉA中国の가가\u0301\u0308 \u200b\t"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece(**options) -> transformers.PreTrainedTokenizerFast:
    letters = sorted({char for char in LETTERS + "est" if not char.isspace()})
    tokens = dict.fromkeys([*SPECIALS, *letters, *("##" + letter for letter in letters), "best", "##est"])
    return transformers.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, **options)


TOKENIZERS = {"uncased": wordpiece(), "cased": wordpiece(do_lower_case=False), "accents": wordpiece(strip_accents=False),
              "roberta": checkpoints.tokenizer("roberta")}


def refusals(tokenizer, tokens) -> dict[str, str]:
    """{token: why no text gives it}, for the tokens that no text gives."""
    reach = Reach(tokenizer)
    return {token: reason for token in tokens if (reason := reach.reason(token)) is not None}


def forced(tokenizer, tokens):
    """Return the backend with any entries added to its vocabulary; for BPE with their merges before all others."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    merges = []
    for token in tokens:
        for end in range(1, len(token) + 1):
            model["vocab"].setdefault(token[:end], len(model["vocab"]))
            model["vocab"].setdefault(token[end - 1], len(model["vocab"]))
            merges.append([token[: end - 1], token[end - 1 : end]])
    if "merges" in model:
        model["merges"] = [merge for merge in merges if merge[0]] + model["merges"]
    else:
        for token in tokens:
            model["vocab"].setdefault(token, len(model["vocab"]))
    return Tokenizer.from_str(json.dumps(state))


@pytest.mark.parametrize(("kind", "token", "reason"), [
    ("uncased", "best", None),
    ("uncased", "nest", None),
    ("uncased", "##nest", None),
    ("uncased", "##1", None),
    ("uncased", "²", None),
    ("uncased", "中", None),
    ("uncased", "の", None),
    ("uncased", "##の", None),
    ("uncased", "%", None),
    ("uncased", "95%", "is cut into '95', '%'"),
    ("uncased", "1).", "is cut into '1', ')', '.'"),
    ("uncased", "##-2", "is cut into '-', '2'"),
    ("uncased", "##-", "is never inside a word: '-' begins one of its own"),
    ("uncased", "##中", "is never inside a word: '中' begins one of its own"),
    ("uncased", "中国", "is changed to '中  国' by the normalizer"),
    ("uncased", "Nest", "is changed to 'nest' by the normalizer"),
    ("uncased", "né", "is changed to 'ne' by the normalizer"),
    ("uncased", "\u0301", "is removed by the normalizer"),
    ("uncased", "가", "is changed to '\u1100\u1161' by the normalizer"),  # Hangul taken apart with the accents
    ("cased", "가나", None),
    ("cased", "Né", None),
    ("cased", "##\u0301", None),
    ("accents", "né", None),
    ("accents", "가나", None),
    ("uncased", "a b", "is cut into 'a', 'b'"),
    ("uncased", " ", "is blank"),
    ("uncased", "", "is empty"),
    ("uncased", "##", "is empty"),
    ("uncased", "x" * 100, None),
    ("uncased", "x" * 101, "is longer than the 100 characters that the model reads of a word"),
    ("uncased", "##" + "x" * 99, None),
    ("uncased", "##" + "x" * 100, "is longer than the 100 characters that the model reads of a word"),
    ("uncased", "[MASK]", "is a special or added token"),
    ("uncased", "x[MASK]", "holds the special or added token '[MASK]'"),
    ("roberta", "Ġhospital", None),
    ("roberta", "hospital", None),
    ("roberta", "'s", None),
    ("roberta", "ĠĠ", None),
    ("roberta", "!!", None),
    ("roberta", "cafÃ©", None),
    ("roberta", "Ġcaf\u00c3", None),  # ends inside a character
    ("roberta", "ë³ĳìĽĲ", None),  # 병원
    ("roberta", "³ĳìĽ", None),  # begins and ends inside one
    ("roberta", "Ġ's", "is cut into \"Ġ'\", 's'"),
    ("roberta", "covid-19", "is cut into 'covid', '-', '19'"),
    ("roberta", "wordĠ", "is cut into 'word', 'Ġ'"),
    ("roberta", "aĠb", "is cut into 'a', 'Ġb'"),
    ("roberta", "ÃaÂ", "is no part of valid UTF-8"),
    ("roberta", "ÿ", "is no part of valid UTF-8"),
    ("roberta", "병", "has '병', which is not of the vocabulary's byte alphabet"),
    ("roberta", "<mask>", "is a special or added token"),
    ("roberta", "Ġ<mask>", "holds the special or added token '<mask>'"),
])
def test_examples(kind, token, reason):
    assert Reach(TOKENIZERS[kind]).reason(token) == reason


def entries(kind):
    text = st.text(st.sampled_from(LETTERS), max_size=4) | st.text(max_size=3)
    if kind == "roberta":
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        plain = text.map(lambda text: "".join(piece for piece, _ in whole.pre_tokenize_str(text)))
        return st.tuples(st.sampled_from(["", "Ġ"]), plain, st.integers(0, 1), st.integers(0, 1)).map(
            lambda made: made[0] + made[1][made[2] : len(made[1]) - made[3]])  # cut inside a character now and then
    return st.tuples(st.sampled_from(["", "##"]), text).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_accepted_comes_out_and_what_is_refused_never_does(kind, data):
    tokenizer = TOKENIZERS[kind]
    old = tokenizer.get_vocab()
    tokens = [token for token in data.draw(st.lists(entries(kind), min_size=1, max_size=6, unique=True)) if token not in old]
    refused = refusals(tokenizer, tokens)
    appended = append_tokens(tokenizer, [token for token in tokens if token not in refused])
    for token in set(tokens) - refused.keys():
        if token in appended.refused:  # only where a character's bytes are shared with the neighbours
            assert kind == "roberta" and "begin and end" in appended.refused[token]
            continue
        text = witness(appended.tokenizer, token)
        assert text is not None, token
        assert token in appended.tokenizer.tokenize(text)
    anyway = forced(tokenizer, [token for token in refused if "special or added" not in refused[token]])
    bare = [token.removeprefix("##").replace("Ġ", " ") for token in tokens]
    parts = st.sampled_from([*bare, "a", "1", "-", " ", "中", "가", "the "]) | st.text(st.sampled_from(LETTERS), max_size=3)
    for _ in range(5):
        text = "".join(data.draw(st.lists(parts, max_size=5)))
        assert not refused.keys() & set(anyway.encode(text, add_special_tokens=False).tokens) - set(old), text


def test_a_published_kind_of_vocabulary_is_reachable():
    for kind in ("cased", "accents"):
        tokens = [token for token in TOKENIZERS[kind].get_vocab() if token.removeprefix("##").isalpha() and not token[-1].isupper()]
        assert {token for token in refusals(TOKENIZERS[kind], tokens) if "中" not in token and "国" not in token} == set()


def test_splitter_of_another_kind_is_asked_and_not_guessed():
    """Under a splitter at spaces alone, "95%" and "##-" are fine."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "9": 1, "##5": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert refusals(tokenizer, ["95%", "##-2", "##%", "中国", "a b"]) == {"a b": "is cut into 'a', 'b'"}


def test_added_tokens_cut_what_they_match():
    tokenizer = wordpiece()
    tokenizer.add_tokens(["nes", transformers.AddedToken("bat", single_word=True)])
    assert refusals(tokenizer, ["nest", "bats", "##anes"]) == {
        "nest": "holds the special or added token 'nes'", "##anes": "holds the special or added token 'nes'"}


def test_no_witness_for_what_does_not_come_out():
    assert witness(TOKENIZERS["uncased"], "best") == "best"
    assert witness(TOKENIZERS["uncased"], "##中") is None
    assert witness(TOKENIZERS["uncased"], "##est").endswith("est")


@pytest.mark.parametrize("family", ["xlm-roberta", "camembert"])
def test_other_models_are_refused(family):
    with refuses("Unigram", "WordPiece", "byte-level BPE"):
        Reach(checkpoints.tokenizer(family))


def test_a_bpe_without_bytes_is_refused():
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    with refuses("BPE", "byte-level"):
        Reach(transformers.PreTrainedTokenizerFast(tokenizer_object=backend))
