"""Checkpoints that do not fit, are damaged, or are not what this project computes: one line each."""

import shlex
import subprocess
import sys

import checkpoints
import numpy as np
import pytest
from checkpoints import assert_bitwise, reconfigure, refused, rewrite, torch
from messages import assert_says

from jaxplm import hf


@pytest.fixture
def bert(tmp_path):
    return checkpoints.save(tmp_path / "bert", "bert")


def test_everything_wrong_is_said_at_once(bert):
    def damage(tensors):
        for layer in (0, 1):
            for part in ("query", "key", "value", "query"):
                tensors.pop(f"bert.encoder.layer.{layer}.attention.self.{part}.weight", None)
                tensors.pop(f"bert.encoder.layer.{layer}.attention.self.{part}.bias", None)
        tensors["bert.encoder.layer.2.output.dense.weight"] = np.zeros((24, 40), np.float32)
        tensors["bert.encoder.layer.1.output.dense.bias"] = np.zeros(25, np.float32)
        tensors["bert.encoder.layer.0.output.dense.bias"] = np.zeros(24, np.int8)

    message = refused(rewrite(bert, damage))
    assert_says(message, "12 missing", "bert.encoder.layer.0.attention.self.query.weight", "6 more",
                "bert.encoder.layer.2.output.dense.weight",
                "bert.encoder.layer.1.output.dense.bias", "[25]", "[24]", "bert.encoder.layer.0.output.dense.bias")


def test_same_tensor_under_two_names(bert):
    def double(tensors):
        tensors["embeddings.word_embeddings.weight"] = tensors["bert.embeddings.word_embeddings.weight"]

    assert_says(refused(rewrite(bert, double)), "embeddings.word_embeddings.weight")


def test_weights_of_another_family(bert):
    message = refused(reconfigure(bert, model_type="roberta"))
    assert_says(message, "roberta", "config.json", "roberta.embeddings.word_embeddings.weight")


@pytest.mark.parametrize(("fields", "words"), [
    ({"model_type": "gpt2"}, ("model_type", "'gpt2'")),
    ({"model_type": "modernbert"}, ("model_type", "'modernbert'")),
    ({"model_type": "absent"}, ("config.json", "model_type")),
    ({"hidden_act": "gelu_new"}, ("hidden_act", "'gelu_new'")),
    ({"hidden_act": "relu"}, ("hidden_act", "'relu'")),
    ({"position_embedding_type": "relative_key", "is_decoder": True},
     ("position_embedding_type", "'relative_key'", "'absolute'", "is_decoder")),
    ({"add_cross_attention": True}, ("add_cross_attention",)),
    ({"quantization_config": {"bits": 8}}, ("quantization_config",)),
    ({"auto_map": {"AutoModel": "modeling.Mine"}}, ("code",)),
    ({"num_attention_heads": 5}, ("hidden_size", "24", "5")),
    ({"num_attention_heads": "absent", "hidden_size": "24"}, ("hidden_size", "'24'", "num_attention_heads")),
])
def test_unsupported_architecture(bert, fields, words):
    assert_says(refused(reconfigure(bert, **fields)), *words)


def test_positions_that_the_offset_uses_up(tmp_path):
    source = checkpoints.save(tmp_path / "roberta", "roberta")
    assert_says(refused(reconfigure(source, max_position_embeddings=2)), "max_position_embeddings", "2")


def test_damaged_files(bert):
    weights = bert / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-100])
    assert_says(refused(bert), "model.safetensors", "damaged")
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(bert)
    weights.write_bytes(good)

    def spoil(tensors):
        tensors["cls.predictions.bias"][7] = np.nan

    assert_says(refused(rewrite(bert, spoil)), "cls.predictions.bias", "finite")
    (bert / "config.json").write_text("{")
    assert_says(refused(bert), "config.json", "JSON")
    (bert / "config.json").write_text("[]")
    assert_says(refused(bert), "config.json", "object")
    (bert / "config.json").unlink()
    assert_says(refused(bert), "config.json")


def test_no_weights(bert):
    weights = bert / "model.safetensors"
    weights.rename(bert / "weights.safetensors")
    assert_says(refused(bert), "weights.safetensors", "model.safetensors")
    (bert / "weights.safetensors").rename(bert / "tf_model.h5")
    assert_says(refused(bert), "tf_model.h5")
    (bert / "tf_model.h5").unlink()
    assert_says(refused(bert), str(bert), "weights")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2])
def test_pickle_is_refused_with_a_command_that_converts_it(shards, tmp_path):
    bert = checkpoints.save(tmp_path / "my bert", "bert", checkpoints.model("bert"))
    expected = hf.load(str(bert))
    state = checkpoints.model("bert").state_dict()  # with the tied decoder, as pickles have it
    (bert / "model.safetensors").unlink()
    names = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    for i, name in enumerate(names):
        torch.save(dict(list(state.items())[i::shards]), bert / name)
    message = refused(bert)
    assert_says(message, "pickle")
    command = shlex.split(message[message.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=120)
    loaded = hf.load(str(bert))
    assert_bitwise(loaded.params, expected.params)
    assert loaded.notes == []
