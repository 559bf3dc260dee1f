"""The table of model families: an entry that is added at run time works everywhere, and a type without an entry is refused by name."""

import dataclasses
import json

import helpers
import numpy as np
import pytest
from pages import run_code
from safetensors.numpy import load_file, save_file

from jaxplm import hf, nn
from jaxplm.errors import UserError
from jaxplm.hf import families
from jaxplm.hf.families import FAMILIES, family_of
from jaxplm.nn import paths
from jaxplm.recipes.pretrain.new_model import new_config
from jaxplm.tasks.kinds import KINDS

SIZES = {"width": 24, "layers": 2, "heads": 3, "ffn_width": 40, "max_positions": 30}


@pytest.fixture
def renamed():
    """The entry that the documentation adds."""
    before = dict(FAMILIES)
    entry = run_code("extend/family.md")["entry"]
    yield entry
    FAMILIES.clear()
    FAMILIES.update(before)


@pytest.fixture
def tokenizer(tmp_path):
    return hf.load_tokenizer(helpers.wordpiece(tmp_path / "tokenizer"), "the test's tokenizer")[0]


def saved(directory, family, tokenizer, **options):
    """Random weights of a family as a checkpoint; returns (directory, config, params)."""
    config = family.encoder_config(tokenizer.pad_token_id, vocab_size=len(tokenizer), **SIZES, **options)
    params = nn.random_params(config, 7)
    return hf.save(directory, config, params, tokenizer, {}), config, params


def assert_same(found, wanted) -> None:
    found, wanted = paths.named(found), paths.named(wanted)
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(leaf), err_msg=name)


@pytest.mark.slow
def test_an_added_family_round_trips_under_its_own_names(renamed, tokenizer, tmp_path):
    directory, config, params = saved(tmp_path / "model", renamed, tokenizer, pooler=True, pair_head=True)
    assert config.position_offset == 1
    described = json.loads((directory / "config.json").read_text())
    assert (described["model_type"], described["architectures"]) == ("renamed-bert", ["RenamedBertForMaskedLM"])
    assert described["max_position_embeddings"] == 31
    names = set(load_file(directory / "model.safetensors")) | set(load_file(directory / "pooler.safetensors"))
    assert {"backbone.emb.words.weight", "backbone.stack.1.att.q.bias", "mlm.b", "follows.weight", "backbone.first.dense.bias"} <= names
    assert {name.split(".")[0] for name in names} == {"backbone", "mlm", "follows"}
    loaded = hf.load(str(directory), pairs=True)
    assert loaded.notes == []
    assert loaded.config == dataclasses.replace(config, pooler=True, pair_head=True)
    assert_same(loaded.params, params)


@pytest.mark.slow
def test_an_added_family_reads_bare_names_and_the_tied_decoder(renamed, tokenizer, tmp_path):
    directory, config, params = saved(tmp_path / "model", renamed, tokenizer)
    tensors = load_file(directory / "model.safetensors")
    bare = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    bare["mlm.out.weight"] = bare["emb.words.weight"]
    bare["labels.weight"] = np.ones((3, 24), np.float32)
    save_file(bare, directory / "model.safetensors", metadata={"format": "pt"})
    loaded = hf.load(str(directory))
    assert_same(loaded.params, params)
    assert len(loaded.notes) == 1 and "labels" in loaded.notes[0]


@pytest.mark.slow
def test_an_added_family_takes_a_task_head(renamed, tokenizer, tmp_path):
    directory, _, params = saved(tmp_path / "model", renamed, tokenizer, pooler=True)
    head = nn.HeadConfig("classify", 3)
    loaded = hf.load_task_model(str(directory), KINDS, head)
    np.testing.assert_array_equal(loaded.params["head"]["dense"]["kernel"], params["pooler"]["kernel"])
    exported = hf.save_task_model(tmp_path / "tuned", loaded, loaded.params, ["a", "b", "c"])
    assert json.loads((exported / "config.json").read_text())["architectures"] == ["RenamedBertForSequenceClassification"]
    assert {"labels.weight", "backbone.first.dense.weight"} <= set(load_file(exported / "model.safetensors"))
    again = hf.load_task_model(str(exported), KINDS)
    assert again.labels == ("a", "b", "c")
    assert_same(again.params, loaded.params)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["modernbert", "gpt2", "BERT", ""])
def test_a_type_without_an_entry_is_refused_with_the_list_of_those_that_have_one(model_type, tokenizer, tmp_path):
    directory, config, params = saved(tmp_path / "model", FAMILIES["bert"], tokenizer)
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": model_type}))
    config = dataclasses.replace(config, model_type=model_type)
    for attempt in (lambda: hf.load(str(directory)), lambda: family_of(model_type),
                    lambda: hf.save(tmp_path / "export", config, params, tokenizer, {})):
        with pytest.raises(UserError) as caught:
            attempt()
        assert repr(model_type) in str(caught.value)
        assert "bert, roberta, xlm-roberta, camembert" in str(caught.value)
    assert not (tmp_path / "export").exists()


def test_an_entry_says_what_the_blocks_cannot_compute():
    with pytest.raises(ValueError, match="bert.*norm_placement is 'pre'"):
        dataclasses.replace(FAMILIES["bert"], norm_placement="pre")  # type: ignore[arg-type]


def test_the_entries_have_the_facts_of_the_released_models():
    for name, family in FAMILIES.items():
        assert (name, family.default_pad_id) == (family.model_type, list(family.special_tokens).index("pad"))
        assert (family.position_offset(family.default_pad_id), family.head_dropout_first, family.pooler_starts_head) == (
            (0, False, True) if name == "bert" else (2, True, False))
        assert set(family.task_heads) == {families.SEQUENCE, families.TOKEN, families.SPAN}
        assert set(family.special_tokens) == {"cls", "sep", "pad", "unk", "mask"}


def test_a_new_model_gets_the_facts_of_its_family(tokenizer):
    config = new_config("tiny", tokenizer, 64)
    assert (config.model_type, config.position_offset, config.token_types, config.norm_eps, config.head_dropout_first) == (
        "bert", 0, 2, 1e-12, False)
    roberta = FAMILIES["roberta"].encoder_config(1, vocab_size=500, **SIZES)
    assert (roberta.model_type, roberta.position_offset, roberta.token_types, roberta.norm_eps, roberta.head_dropout_first) == (
        "roberta", 2, 1, 1e-5, True)
