"""Files of a model directory with values that they cannot have: one line with the file, the field and the value, nothing allocated."""

import json
import resource

import checkpoints
import pytest
from checkpoints import reconfigure, refused
from messages import assert_says, refuses

from jaxplm import hf
from jaxplm.errors import UserError
from jaxplm.hf.config import config_from_hf
from jaxplm.tasks.kinds import KINDS

DESCRIBED = {"model_type": "bert", **checkpoints.SMALL}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def bert(tmp_path):
    return checkpoints.save(tmp_path / "bert", "bert")


@pytest.mark.parametrize("field", ["layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"])
@pytest.mark.parametrize(("value", "shown"), [
    (None, "null"), (float("nan"), "nan"), (-0.5, "-0.5"), (True, "true"), ("0.1", "'0.1'"), ([], "[]"), (2**63, str(2**63)),
    (float("inf"), "inf")])
def test_numbers_of_config_json(field, value, shown):
    with refuses("here", "config.json", field, shown):
        config_from_hf({**DESCRIBED, field: value}, "here")


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                                   "max_position_embeddings", "type_vocab_size", "pad_token_id"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "12", [], {}, 2**63, 10**9])
def test_sizes_of_config_json(field, value):
    with refuses("here", "config.json", field):
        config_from_hf({**DESCRIBED, field: value}, "here")


@pytest.mark.parametrize(("fields", "parts"), [
    ({"hidden_dropout_prob": 2.0}, ("hidden_dropout_prob", "2.0")),
    ({"hidden_dropout_prob": 1}, ("hidden_dropout_prob", "1")),
    ({"classifier_dropout": "x"}, ("classifier_dropout", "'x'")),
    ({"num_hidden_layers": None}, ("num_hidden_layers", "null")),
    ({"type_vocab_size": None}, ("type_vocab_size", "null")),
    ({"pad_token_id": 403}, ("pad_token_id", "403", "vocab_size")),
    ({"tie_word_embeddings": "no"}, ("tie_word_embeddings", "'no'")),
    ({"model_type": ["bert"]}, ("model_type", "['bert']")),
    ({"layer_norm_eps": None, "hidden_dropout_prob": -1}, ("layer_norm_eps", "null", "hidden_dropout_prob", "-1")),
])
def test_every_wrong_field_is_named(fields, parts):
    with refuses("here", *parts):
        config_from_hf({**DESCRIBED, **fields}, "here")


def test_null_where_it_means_the_default():
    fields = {"classifier_dropout": None, "pad_token_id": None, "position_embedding_type": None, "id2label": None}
    assert config_from_hf({**DESCRIBED, **fields}, "here").pad_id == 0


@pytest.mark.parametrize("content", [DEEP, '{"a": ' * 100_000, '{"a": "\\ud800"}', "9" * 5000, "\ufeff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "jaxplm.json", "model.safetensors.index.json"])
def test_json_that_is_no_object(bert, name, content):
    if name.startswith("model."):
        (bert / "model.safetensors").unlink()
    (bert / name).write_text(content, "utf-8")
    with pytest.raises(UserError) as caught:
        hf.load_model(str(bert), KINDS)
    assert_says(str(caught.value), name)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("fields", [
    {"num_hidden_layers": 10**6}, {"num_hidden_layers": 1000}, {"num_labels": 10**9}, {"num_labels": 10**6}, {"vocab_size": 10**7},
    {"hidden_size": 60_000}, {"max_position_embeddings": 10**6}])
def test_sizes_are_compared_before_memory_is_taken(tmp_path, fields):
    config = checkpoints.hf_config("bert", num_labels=3)
    directory = checkpoints.save_classifier(tmp_path / "bert", config)
    checkpoints.tokenizer("bert").save_pretrained(directory)
    reconfigure(directory, **fields, **({"id2label": "absent"} if "num_labels" in fields else {}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        hf.load_task_model(str(directory), KINDS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000  # KiB
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(("head", "parts"), [
    ({"classes": 10**9}, ("classes", str(10**9))), ({"classes": 10**6}, ("head",)), ({"classes": None}, ("classes", "null")),
    ({"body_width": -1}, ("body_width", "-1")), ({"dropout": 2}, ("dropout", "2")), ({"pooling": []}, ("pooling", "[]")),
    ({"kind": {}}, ("kind", "{}")), ("mean", ("jaxplm.json",))])
def test_heads_of_jaxplm_json(bert, head, parts):
    good = {"kind": "classify", "classes": 2, "pooling": "mean", "layers": "last", "body": "", "body_width": 8, "dropout": 0.1}
    content = {"version": "1", "head": {**good, **head} if isinstance(head, dict) else head, "labels": ["a", "b"]}
    (bert / "jaxplm.json").write_text(json.dumps(content))
    (bert / "head.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    with pytest.raises(UserError) as caught:
        hf.load_model(str(bert), KINDS)
    assert_says(str(caught.value), *parts)


@pytest.mark.parametrize("placed", [None, [], {"a": 1}, {"a": None}, {"a": ["x"]}, {"a": "../x.safetensors"}, {"a": ""}, {}])
def test_indexes_of_shards(bert, placed):
    (bert / "model.safetensors").unlink()
    (bert / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert_says(refused(bert), "model.safetensors.index.json")
