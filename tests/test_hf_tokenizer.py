"""Tokenizers of a checkpoint: classic files, wrong settings, and exports that transformers reads as the same tokenizer."""

import json
from pathlib import Path

import checkpoints
import pytest
import transformers
from messages import assert_says, missing_parts, refuses
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from jaxplm import hf
from jaxplm.errors import UserError
from jaxplm.hf.tokenizer import save_tokenizer, unreachable_share

TEXT = "The dog reads 아버지가 text."


def written(directory: Path, family: str, **settings) -> Path:
    """A directory with only the classic files of a family's tokenizer and a tokenizer_config.json."""
    directory.mkdir()
    tokenizer = checkpoints.tokenizer(family)
    tokenizer.backend_tokenizer.model.save(str(directory))
    content = {"tokenizer_class": type(tokenizer).__name__, "model_max_length": 512, **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(content))
    return directory


def refused(directory: Path, vocab_size: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        hf.load_tokenizer(directory, "here", vocab_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("family", "settings"), [
    ("bert", {"do_lower_case": False}), ("klue", {"do_lower_case": False}), ("roberta", {})])
def test_classic_files_alone(family, settings, tmp_path):
    directory = written(tmp_path / family, family, **settings)
    assert not (directory / "tokenizer.json").exists()
    loaded, notes = hf.load_tokenizer(directory, "here")
    assert notes == []
    assert loaded.is_fast
    assert loaded(TEXT)["input_ids"] == checkpoints.tokenizer(family)(TEXT)["input_ids"]


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_export_has_the_classic_files(family, tmp_path):
    tokenizer = checkpoints.tokenizer(family)
    save_tokenizer(tokenizer, tmp_path, max_positions=30)
    classic = {"bert": {"vocab.txt"}, "klue": {"vocab.txt"}, "roberta": {"vocab.json", "merges.txt"}}
    assert {file.name for file in tmp_path.iterdir()} == {
        "tokenizer.json", "tokenizer_config.json", *classic.get(family, set())}
    if family == "klue":
        first = (tmp_path / "vocab.txt").read_text("utf-8").split("\n")[:5]
        assert first == ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 30  # a text of more would index past the position table
    assert not {"is_local", "local_files_only", "name_or_path"} & settings.keys()


def test_too_large_for_the_model(tmp_path):
    directory = written(tmp_path / "bert", "bert", do_lower_case=False)
    size = len(checkpoints.tokenizer("bert"))
    hf.load_tokenizer(directory, "here", size)
    message = refused(directory, size - 1)
    assert_says(message, "tokenizer", str(size - 1))


def test_a_model_with_a_foreign_tokenizer_is_refused(tmp_path):
    source = checkpoints.save(tmp_path / "bert", "bert", sizes={**checkpoints.SMALL, "vocab_size": 99})
    with refuses("tokenizer", "99"):
        hf.load(str(source))


def test_padding_id_that_differs(tmp_path):
    source = checkpoints.save(tmp_path / "bert", "bert", pad_token_id=3)
    assert [note for note in hf.load(str(source)).notes if not missing_parts(note, "0", "config.json", "3")]


def test_slow_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert_says(refused(tmp_path), "ByT5Tokenizer", "fast")


def test_code_of_a_tokenizer_is_never_run(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}')
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [null, "mine.Mine"]}}')
    assert_says(refused(tmp_path), "here", "tokenizer")


def test_nothing_there(tmp_path):
    assert_says(refused(tmp_path), "here", "tokenizer")


def test_no_mask_token(tmp_path):
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(tmp_path)
    assert_says(refused(tmp_path), "cls_token", "sep_token", "mask_token")


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}])
def test_korean_vocabulary_under_lower_casing_is_noticed(settings, tmp_path):
    directory = written(tmp_path / "ko", "klue", **settings)
    loaded, notes = hf.load_tokenizer(directory, "here")
    assert unreachable_share(loaded) > 0.2
    assert len(notes) == 1
    assert '"do_lower_case": false' in notes[0]
    assert unreachable_share(checkpoints.tokenizer("klue")) == 0
    assert unreachable_share(checkpoints.tokenizer("roberta")) == 0


def test_settings_that_override_the_file_are_reported(tmp_path):
    checkpoints.tokenizer("bert").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_lower_case": True}))
    loaded, notes = hf.load_tokenizer(tmp_path, "here")
    assert [note for note in notes if not missing_parts(note, "normalizer", "tokenizer.json")]
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXT)["input_ids"] == stock(TEXT)["input_ids"]


def test_truncation_in_the_file_is_switched_off_and_not_exported(tmp_path):
    made = checkpoints.tokenizer("bert")
    made.backend_tokenizer.enable_truncation(4)
    made.backend_tokenizer.enable_padding(length=6)
    source = tmp_path / "source"
    made.save_pretrained(source)
    loaded, _ = hf.load_tokenizer(source, "here")
    assert len(loaded.backend_tokenizer.encode(TEXT).ids) > 6
    loaded(TEXT, truncation=True, max_length=3, padding="max_length")  # leaves its settings in the backend
    state = loaded.backend_tokenizer.truncation, loaded.backend_tokenizer.padding
    assert None not in state
    (tmp_path / "export").mkdir()
    save_tokenizer(loaded, tmp_path / "export", max_positions=30)
    content = json.loads((tmp_path / "export" / "tokenizer.json").read_text())
    assert (content["truncation"], content["padding"]) == (None, None)
    assert (loaded.backend_tokenizer.truncation, loaded.backend_tokenizer.padding) == state


def test_pipeline_that_the_class_does_not_know_survives_the_export(tmp_path):
    """BertTokenizer of transformers would rebuild its usual normalizer and splits; the export prevents that."""
    made = checkpoints.tokenizer("bert")
    steps = [normalizers.NFC(), normalizers.Replace("dog", "fox")]
    made.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_tokenizer(made, tmp_path, max_positions=30)
    with checkpoints.listening() as heard:
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert heard == []
    assert stock("the dog")["input_ids"] == stock("the fox")["input_ids"] == made("the fox")["input_ids"]
    assert stock("a", "b").keys() == made("a", "b").keys()
    loaded, notes = hf.load_tokenizer(tmp_path, "here")
    assert notes == []
    assert loaded.backend_tokenizer.to_str() == made.backend_tokenizer.to_str()


def test_a_tokenizer_of_no_class_of_its_own(tmp_path):
    backend = checkpoints.tokenizer("roberta").backend_tokenizer
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>", unk_token="<unk>")
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    save_tokenizer(made, tmp_path, max_positions=30)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # the name that older versions know, too
    with checkpoints.listening() as heard:
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert heard == []
    assert stock(TEXT)["input_ids"] == made(TEXT)["input_ids"]


def test_vocabulary_with_gaps_has_no_vocab_txt(tmp_path):
    """An id is a line number of vocab.txt, so every token after the gap would move."""
    vocab = {**checkpoints.tokenizer("bert").get_vocab(), "far": 390}
    made = transformers.BertTokenizer(vocab=vocab, do_lower_case=False)
    save_tokenizer(made, tmp_path, max_positions=30)
    assert not (tmp_path / "vocab.txt").exists()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("far")["input_ids"][1] == 390
