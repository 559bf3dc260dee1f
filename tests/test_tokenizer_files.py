"""Tokenizers of a model directory that are missing, damaged, or do not fit the model: what is seen and a remedy that works."""

import json
import shutil

import checkpoints
import numpy as np
import pytest
import transformers
from checkpoints import refused
from messages import assert_says, missing_parts
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from jaxplm import hf
from jaxplm.data.corpus.unknown_words import cause_of_unknown
from jaxplm.data.labelled.encodings import TokenizerEncoder
from jaxplm.errors import UserError
from jaxplm.hf.notes import Warned
from jaxplm.vocab.advice import advise
from jaxplm.vocab.measure import measure
from jaxplm.vocab.reach import fixed_because

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json")


def without_tokenizer(directory):
    for name in TOKENIZER_FILES:
        (directory / name).unlink(missing_ok=True)
    return directory


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
@pytest.mark.parametrize("settings", [False, True])
def test_a_model_directory_must_bring_its_tokenizer(tmp_path, family, settings):
    directory = without_tokenizer(checkpoints.save(tmp_path / family, family))
    if settings:
        (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False}))
    assert_says(refused(directory), "tokenizer", "tokenizer.json", "tokenizer.save_pretrained")


@pytest.mark.parametrize(("family", "name", "content"), [
    ("roberta", "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n"),  # RobertaTokenizer reads vocab.json
    ("roberta", "vocab.json", "{}"), ("bert", "vocab.txt", ""), ("bert", "vocab.json", '{"a": 0}')])
def test_files_that_the_class_does_not_read(tmp_path, family, name, content):
    directory = without_tokenizer(checkpoints.save(tmp_path / family, family))
    (directory / name).write_text(content)
    assert_says(refused(directory), "tokenizer")


@pytest.mark.parametrize("damage", [
    lambda text: text[: len(text) // 2], lambda text: "", lambda text: "[" * 100_000, lambda text: "null",
    lambda text: text.replace('"WordPiece"', '"Word"'), lambda text: text.replace('"##"', "7"),
    lambda text: json.dumps({**json.loads(text), "model": {"type": "WordPiece", "vocab": {}}}),
    lambda text: json.dumps({**json.loads(text), "added_tokens": [{"id": 2**40, "content": "x"}]})])
def test_damaged_tokenizer_json(tmp_path, damage):
    directory = checkpoints.save(tmp_path / "bert", "bert")
    file = directory / "tokenizer.json"
    file.write_text(damage(file.read_text()))
    message = refused(directory)
    assert_says(message, "tokenizer")
    assert len(message) < 700


@pytest.mark.parametrize(("setting", "value"), [
    ("model_max_length", "512"), ("model_max_length", -1), ("model_max_length", []), ("model_input_names", "input_ids"),
    ("model_input_names", [1])])
def test_settings_that_cannot_be(tmp_path, setting, value):
    directory = checkpoints.save(tmp_path / "bert", "bert")
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), setting: value}))
    assert_says(refused(directory), "tokenizer_config.json", setting)


# ---------------------------------------------------------------- the frame


def unframed(directory, family, post_processor=None):
    """A checkpoint with a tokenizer.json whose post-processor is the given one."""
    checkpoints.save(directory, family)
    special = checkpoints.tokenizer(family).special_tokens_map
    backend = checkpoints.tokenizer(family).backend_tokenizer
    backend = Tokenizer.from_str(json.dumps({**json.loads(backend.to_str()), "post_processor": None}))
    if post_processor is not None:
        backend.post_processor = post_processor
    without_tokenizer(directory)
    backend.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


HALF = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])


@pytest.mark.parametrize(("family", "post_processor"), [
    ("bert", None), ("bert", HALF), ("roberta", None), ("roberta", processors.ByteLevel(trim_offsets=True)), ("xlm-roberta", None)])
def test_a_tokenizer_without_the_frame_gets_it_everywhere(tmp_path, family, post_processor):
    loaded = hf.load(str(unframed(tmp_path / "model", family, post_processor)))
    roles = str(loaded.tokenizer.cls_token), str(loaded.tokenizer.sep_token)
    assert [note for note in loaded.notes if isinstance(note, Warned) and not missing_parts(note, *roles)]
    proper = checkpoints.tokenizer(family)
    expected = proper("the dog", "a text")
    assert loaded.tokenizer("the dog", "a text")["input_ids"] == expected["input_ids"]
    encoded = TokenizerEncoder(loaded.tokenizer).cut(["the dog"], ["a text"], 64)
    assert encoded.ids.tolist() == expected["input_ids"]
    assert encoded.types.tolist() == (expected.get("token_type_ids") or [0] * len(expected["input_ids"]))
    plain = TokenizerEncoder(loaded.tokenizer).windows(["the dog"], 64, np.zeros(1, np.int64), pair=False)
    assert plain.ids.tolist() == proper("the dog")["input_ids"]
    offsets = proper("the dog", return_offsets_mapping=True)["offset_mapping"]
    if post_processor is not None and family != "bert":  # what the post-processor did besides is kept: places of tokens have no spaces
        assert plain.chars is not None and plain.chars.tolist()[1:-1] == [list(place) for place in offsets[1:-1]]
    hf.save(tmp_path / "export", loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")("the dog", "a text")
    assert stock["input_ids"] == expected["input_ids"]
    assert stock.keys() == expected.keys()
    assert hf.load(str(tmp_path / "export")).notes == []


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_a_tokenizer_with_the_frame_is_not_touched(tmp_path, family):
    loaded = hf.load(str(checkpoints.save(tmp_path / family, family)))
    assert not [note for note in loaded.notes if isinstance(note, Warned)]
    assert loaded.tokenizer.backend_tokenizer.to_str() == checkpoints.tokenizer(family).backend_tokenizer.to_str()


# ---------------------------------------------------------------- vocabularies that the tokenizer cannot use


def listed(directory, tokens, **settings):
    """A tokenizer whose vocab.txt has these tokens."""
    directory.mkdir()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (directory / "vocab.txt").write_text("\n".join([*specials, *tokens]) + "\n", "utf-8")
    (directory / "config.json").write_text('{"model_type": "bert"}')
    content = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(content))
    return hf.load_tokenizer(directory, "here")


LETTERS = [mark + chr(code) for code in range(0x1100, 0x1200) for mark in ("", "##")]
COMPATIBLE = [mark + chr(code) for code in range(0x3131, 0x318F) for mark in ("", "##")]
SYLLABLES = [mark + chr(code) for code in range(0xAC00, 0xAC00 + 3000) for mark in ("", "##")]


@pytest.mark.parametrize(("tokens", "parts"), [
    (["▁" + word for word in checkpoints.TEXTS[0].split()] + ["er", "s", "한", "▁글"], ("SentencePiece", "tokenizer.json", "[UNK]")),
    (["Ġ" + word for word in checkpoints.TEXTS[0].split()] + ["er", "s"], ("byte-level BPE", "tokenizer.json")),
    (LETTERS, ("sub-characters", '"strip_accents": true')),
    (COMPATIBLE, ("sub-characters", "U+3131")),
])
def test_lists_of_another_kind_are_named(tmp_path, tokens, parts):
    tokenizer, notes = listed(tmp_path / "model", tokens)
    assert_says(" ".join(note for note in notes if isinstance(note, Warned)), *parts)
    assert_says(cause_of_unknown(tokenizer), *(part for part in parts if part != "[UNK]"))


def test_the_remedy_for_sub_characters_works(tmp_path):
    tokenizer, notes = listed(tmp_path / "model", LETTERS, strip_accents=True)
    assert notes == []
    assert tokenizer.unk_token not in tokenizer.tokenize("한글 위키백과")


@pytest.mark.parametrize(("tokens", "settings", "part"), [
    (SYLLABLES + COMPATIBLE, {"do_lower_case": True}, '"do_lower_case": false'),
    (checkpoints.TEXTS[0].split(), {"do_lower_case": True}, "extend"),  # no Hangul: taking it apart is not the cause
    (checkpoints.TEXTS[0].split(), {}, "extend"),
    (SYLLABLES + COMPATIBLE, {}, "extend"),
])
def test_causes_of_unknown_words(tmp_path, tokens, settings, part):
    tokenizer, _ = listed(tmp_path / "model", tokens, **settings)
    assert_says(cause_of_unknown(tokenizer), part)


@pytest.mark.parametrize(("settings", "part"), [
    ({"tokenizer_class": "KoBertTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_kobert.KoBertTokenizer", None]}},
     "'tokenization_kobert.KoBertTokenizer'"),
    ({"tokenizer_class": "KoBertTokenizer"}, "'KoBertTokenizer'"),
])
def test_tokenizers_that_come_as_code(tmp_path, settings, part):
    words = tmp_path / "words"
    listed(words, ["the", "##s"])
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError) as caught:
        hf.load_tokenizer(words, "here")
    assert_says(str(caught.value), "code", part, '"tokenizer_class": "BertTokenizer"', "auto_map")
    assert "trust_remote_code" not in str(caught.value)
    (words / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))  # the remedy
    assert hf.load_tokenizer(words, "here")[1] == []
    pieces = tmp_path / "pieces"
    shutil.copytree(words, pieces)
    (pieces / "vocab.txt").write_text("[UNK]\n[PAD]\n▁the\n", "utf-8")
    (pieces / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError) as caught:
        hf.load_tokenizer(pieces, "here")
    assert_says(str(caught.value), "code", part, "tokenizer.json", "docs/troubleshooting.md")


def test_advice_for_a_vocabulary_that_cannot_grow():
    """Unigram takes no new tokens, neither appended nor with exBERT: neither is advised."""
    tokenizer = checkpoints.tokenizer("xlm-roberta")
    texts = [f"parenteral{i} hepatocyte{i}" for i in range(50)]
    measured = measure(texts, tokenizer)
    fixed = fixed_because(tokenizer)
    assert_says(fixed, "Unigram")
    advice = advise(measured, 10**6, None, 0.0, fixed)
    assert advise(measured, 10**6).kind in ("append", "exbert", "scratch")
    assert advice.tokens == 0
    assert "exbert.py" not in advice.sentence and "extend_vocab.py" not in advice.sentence
    assert fixed_because(checkpoints.tokenizer("roberta")) == fixed_because(checkpoints.tokenizer("bert")) == ""
    word_bpe = Tokenizer(models.BPE({"a": 0}, []))
    word_bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    assert fixed_because(transformers.PreTrainedTokenizerFast(tokenizer_object=word_bpe)) != ""
