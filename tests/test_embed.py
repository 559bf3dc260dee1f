"""Vectors of texts against PyTorch's, one text at a time against many in a row, and what an export holds."""

import functools
import json

import checkpoints
import jax
import numpy as np
import pytest
import transformers
from checkpoints import torch
from messages import refuses

import jaxplm
from jaxplm import config, hf, nn
from jaxplm.data.labelled.text_blocks import text_blocks
from jaxplm.devices import sharding
from jaxplm.hf.sentence_export import save_sentence_encoder
from jaxplm.recipes.embed.encoder import TextEncoder
from jaxplm.recipes.embed.model import layer_shares, load_embedding_model

TEXTS = [*checkpoints.TEXTS, "", "fox", "the dog " * 20, "  a text of the dog \n", *(" ".join(checkpoints.TEXTS[:2]).split())]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(directory, PyTorch's model, tokenizer, N)"""
    return saved(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def whole(model):
    """The vectors of TEXTS with the settings that most tests compare with."""
    return embed(model[0])


def saved(directory, family):
    """Return (directory, tokenizer, number of layers) of a new model."""
    checkpoints.save(directory, family, sizes=checkpoints.SIZES)
    return str(directory), transformers.AutoTokenizer.from_pretrained(directory), checkpoints.SIZES["num_hidden_layers"]


@functools.cache
def stock(directory):
    return transformers.AutoModelForMaskedLM.from_pretrained(directory).eval().base_model


def reference(model, texts, pooling, mix, normalize=False, length=40) -> np.ndarray:
    """One text at a time, no padding, in PyTorch. mix: [N + 1] weights of the layers."""
    directory, tokenizer, _ = model
    made = stock(directory)
    vectors = []
    for text in texts:
        inputs = tokenizer(text.strip(), truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            layers = made(**inputs, output_hidden_states=True).hidden_states
        tokens = sum(weight * layer[0] for weight, layer in zip(mix, layers, strict=True))
        pooled = {"cls": lambda t: t[0], "mean": lambda t: t.mean(0), "max": lambda t: t.max(0).values}[pooling](tokens)
        vectors.append(torch.nn.functional.normalize(pooled, dim=0) if normalize else pooled)
    return torch.stack(vectors).numpy()


def embed(directory, texts=TEXTS, **options) -> np.ndarray:
    return jaxplm.embed(texts, directory, **({"compute": "float32", "seq_len": 40, "batch_size": 8} | options))


def close(found, wanted, limit=1e-4):
    assert found.shape == wanted.shape
    assert np.abs(found.astype(np.float32) - wanted).max() <= limit


@pytest.mark.slow
@pytest.mark.parametrize("pooling, normalize", [("cls", False), ("mean", False), ("max", False), ("mean", True)])
def test_vectors_are_those_of_pytorch(model, pooling, normalize):
    found = embed(model[0], pooling=pooling, normalize=normalize)
    assert found.dtype == np.float32
    close(found, reference(model, TEXTS, pooling, [0] * model[2] + [1], normalize))


@pytest.mark.slow
def test_vectors_of_roberta_are_those_of_pytorch(tmp_path):
    model = saved(tmp_path / "roberta", "roberta")
    close(embed(model[0]), reference(model, TEXTS, "mean", [0] * model[2] + [1]))


@pytest.mark.parametrize("layers, mix", [
    ("last", (0, 0, 0, 1)), ("last4", (0, 1, 1, 1)), ("mean", (1, 1, 1, 1)), ("0", (1, 0, 0, 0)), ("1", (0, 1, 0, 0)), ("2", (0, 0, 1, 0)),
    ("-1", (0, 0, 0, 1)), ("-2", (0, 0, 1, 0)), ("-4", (1, 0, 0, 0)),
])
def test_the_share_of_each_layer(layers, mix):
    assert np.allclose(layer_shares(config.Embed(layers=layers), 3), np.array(mix) / sum(mix), rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("layers, mix", [("last4", (0, 1, 1, 1)), (0, (1, 0, 0, 0)), ("-2", (0, 0, 1, 0))])
def test_layers(model, layers, mix):
    close(embed(model[0], layers=layers), reference(model, TEXTS, "mean", np.array(mix) / sum(mix)))


@pytest.mark.slow
def test_a_mix_of_layers_is_divided_by_its_sum_and_pooled_after_it(model):
    mix = (0.5, 0, 2.5, 1)
    close(embed(model[0], mix=mix, pooling="max"), reference(model, TEXTS, "max", np.array(mix) / 4))


def test_last4_of_a_deep_model():
    shares = layer_shares(config.Embed(layers="last4"), 6)
    assert shares.tolist() == [0, 0, 0, 0.25, 0.25, 0.25, 0.25]
    assert shares.dtype == np.float32


@pytest.mark.slow
def test_a_vector_does_not_depend_on_what_shares_its_row(model, whole):
    """Against one text a row, padded, through the same module."""
    module, tokenizer = jaxplm.load(model[0])
    batch = tokenizer([text.strip() for text in TEXTS], padding=True, truncation=True, max_length=40, return_tensors="np")
    hidden = np.asarray(module.hidden_states(batch["input_ids"], batch["attention_mask"]))
    mask = batch["attention_mask"][..., None]
    close(whole, (hidden * mask).sum(1) / mask.sum(1), 1e-5)


@pytest.mark.slow
def test_order_and_batches(model, whole):
    """Eight devices: a batch has as many rows at least."""
    order = np.random.default_rng(0).permutation(len(TEXTS))
    close(embed(model[0], [TEXTS[i] for i in order], batch_size=1), whole[order], 1e-5)


@pytest.mark.slow
def test_texts_are_cut_at_seq_len(model):
    close(embed(model[0], seq_len=9), reference(model, TEXTS, "mean", [0, 0, 0, 1], length=9))
    positions = hf.load(model[0]).config.max_positions
    long = ["the dog " * 200]
    close(embed(model[0], long, seq_len=None), reference(model, long, "mean", [0, 0, 0, 1], length=positions))


@pytest.mark.slow
def test_float16(model, whole):
    found = embed(model[0], dtype="float16")
    assert found.dtype == np.float16
    assert np.array_equal(found, whole.astype(np.float16))


@pytest.mark.slow
def test_what_float16_cannot_hold_is_said(model, tmp_path):
    made = checkpoints.model("bert")
    with torch.no_grad():
        made.bert.encoder.layer[-1].output.LayerNorm.weight.mul_(1e6)
    directory = checkpoints.save(tmp_path / "large", "bert", made)
    with refuses("embed.dtype=float16", "float32"):
        embed(str(directory), ["the dog"], seq_len=20, dtype="float16")
    assert np.isfinite(embed(str(directory), ["the dog"], seq_len=20)).all()


@pytest.mark.slow
def test_bfloat16_products_keep_the_direction(model, whole):
    """The arithmetic of a CPU with bfloat16 instructions, and of an accelerator, on any machine."""
    for compute in (nn.Compute("float32", "bfloat16", True), nn.Compute("bfloat16", "bfloat16", False)):
        found = encoded(model[0], TEXTS, compute=compute)
        cosine = (found * whole).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(whole, axis=1)
        assert cosine.min() >= 0.999, compute


def encoded(directory, texts, pooling="mean", compute=nn.Compute(), length=48, block_rows=1000, rows=8, devices=8) -> np.ndarray:
    settings = config.Embed(pooling=pooling)
    model = load_embedding_model(directory, settings)
    mesh = sharding.make_mesh(config.Mesh(), jax.devices()[:devices])
    encoder = TextEncoder(model, settings, mesh, compute, rows=rows, length=length)
    blocks = text_blocks((text.strip() for text in texts), model.tokenizer, 40, max_rows=block_rows)
    vectors = np.concatenate([encoder(encoder.batches(block.encoded)) for block in blocks])
    assert encoder._step.traces == 1, "blocks of any number of texts are computed by one compilation"
    return vectors


@pytest.mark.slow
def test_blocks_and_devices_give_the_same(model, whole):
    close(encoded(model[0], TEXTS, block_rows=7, rows=2, devices=2), whole, 1e-5)


@pytest.mark.slow
def test_vectors_of_tokens(model):
    """Special ones too, in the order of the units."""
    directory, tokenizer, _ = model
    made = stock(directory)
    found = encoded(model[0], TEXTS, pooling="none")
    at = 0
    for text in TEXTS:
        inputs = tokenizer(text.strip(), truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            wanted = made(**inputs).last_hidden_state[0].numpy()
        close(found[at : at + len(wanted)], wanted)
        at += len(wanted)
    assert at == len(found)


@pytest.mark.slow
def test_no_texts_and_one(model):
    assert embed(model[0], []).shape == (0, checkpoints.SIZES["hidden_size"])
    assert embed(model[0], iter(["the dog"])).shape == (1, checkpoints.SIZES["hidden_size"])


@pytest.mark.parametrize("texts, options, said", [
    ("the dog", {}, ("texts", "list")),
    (["the dog", 3], {}, ("texts[1]", "int", "str")),
    ([None], {}, ("texts[0]", "NoneType", "str")),
    (["a"], {"pooling": "avg"}, ("pooling='avg'", "cls", "mean", "max", "none")),
    (["a"], {"pooling": "none"}, ("configs/embed.py",)),
    (["a"], {"layers": "top"}, ("layers='top'", "last", "last4", "mean", "number")),
    (["a"], {"layers": 4}, ("layers=4", "0", "embeddings", "3")),
    (["a"], {"layers": -5}, ("layers=-5",)),
    (["a"], {"mix": (1.0, 2.0)}, ("mix", "2", "4")),
    (["a"], {"mix": (1.0, -1.0, 0.0, 0.0)}, ("mix=", "sum", "0")),
    (["a"], {"dtype": "int8"}, ("dtype='int8'",)),
    (["a"], {"compute": "float64"}, ("compute='float64'",)),
    (["a"], {"seq_len": 400}, ("seq_len=400", "positions")),
    (["a"], {"batch_size": 0}, ("batch_size=0", "1")),
])
def test_mistakes(model, texts, options, said):
    with refuses("jaxplm.embed", *said) as refused:
        embed(model[0], texts, **options)
    assert "--config" not in str(refused.value) and "embed.layers" not in str(refused.value)


def test_no_model(tmp_path):
    with refuses("nothing"):
        embed(str(tmp_path / "nothing"), ["a"])


@pytest.mark.slow
@pytest.mark.parametrize("family, pooler, layers, pooling, normalize", [
    ("bert", True, "last", "mean", True), ("bert", False, "2", "cls", False), ("roberta", False, "-1", "max", False),
])
def test_the_export_is_the_encoder_that_gave_the_vectors(tmp_path, family, pooler, layers, pooling, normalize):
    """sentence-transformers takes the base model and pools; so does this test, by the files alone."""
    directory = str(tmp_path / "start")
    checkpoints.save(tmp_path / "start", family, checkpoints.model(family, checkpoints.SIZES, "Model" if pooler else "ForMaskedLM"))
    model = load_embedding_model(directory, config.Embed(layers=layers))
    assert model.is_plain and model.config.pooler == pooler
    export = save_sentence_encoder(tmp_path / "export", model.config, model.params, model.tokenizer, model.hf_config,
                                   pooling=pooling, normalize=normalize, seq_len=21, files={"README.md": "card"})
    modules = json.loads((export / "modules.json").read_text())
    assert [(m["idx"], m["path"], m["type"].rsplit(".", 1)[1]) for m in modules] == \
        [(0, "", "Transformer"), (1, "1_Pooling", "Pooling"), (2, "2_Normalize", "Normalize")][: 2 + normalize]
    assert (export / "2_Normalize").is_dir() == normalize
    assert json.loads((export / "sentence_bert_config.json").read_text()) == {"max_seq_length": 21, "do_lower_case": False}
    modes = json.loads((export / "1_Pooling" / "config.json").read_text())
    assert modes["word_embedding_dimension"] == checkpoints.SIZES["hidden_size"]
    assert [name for name, on in modes.items() if on is True and name != "include_prompt"] == \
        [f"pooling_mode_{'cls_token' if pooling == 'cls' else pooling + '_tokens'}"]
    assert (export / "README.md").read_text() == "card"
    with checkpoints.listening() as heard:
        loaded = transformers.AutoModel.from_pretrained(export).eval()
    assert heard == []
    depth = 2 if layers == "2" else 3
    assert loaded.config.num_hidden_layers == depth
    as_model = (str(export), transformers.AutoTokenizer.from_pretrained(export), depth)
    wanted = embed(directory, layers=layers, pooling=pooling, normalize=normalize, seq_len=21)
    close(wanted, reference(as_model, TEXTS, pooling, [0] * depth + [1], normalize, 21))
    close(embed(str(export), pooling=pooling, normalize=normalize, seq_len=21), wanted, 1e-5)
