"""A text that spells the padding token out: positions as transformers gives them, in every path."""

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import torch

import jaxplm
from jaxplm import hf, nn
from jaxplm.data.labelled.encodings import TokenizerEncoder
from jaxplm.data.labelled.unit_rows import PlacedRows, encoder_batch

TEXTS = ["the dog {0} and the {0}{0} fox", "{0} a text", "the quick brown fox", "a {0}"]


def packed(loaded, texts):
    """The texts in one row."""
    encoded = TokenizerEncoder(loaded.tokenizer).cut(texts, None, 27)
    n, tokens = len(texts), int(encoded.offsets[-1])
    rows = PlacedRows(encoded.offsets, np.array([n]), np.arange(n), tokens + 3, n)
    return encoded, encoder_batch(encoded, loaded.config.pad_id, rows)


@pytest.mark.slow
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_positions(tmp_path, family):
    """fairseq counts the tokens that are not padding from pad id + 1, and gives padding its own id."""
    loaded = hf.load(str(checkpoints.save(tmp_path / family, family)))
    pad = loaded.config.pad_id
    encoded, batch = packed(loaded, [text.format(loaded.tokenizer.pad_token) for text in TEXTS])
    assert (encoded.ids == pad).sum() == 5
    expected = []
    for begin, end in zip(encoded.offsets, encoded.offsets[1:], strict=False):
        real = encoded.ids[begin:end] != pad
        expected += (np.cumsum(real) * real + pad if family != "bert" else np.arange(end - begin)).tolist()
    table = np.random.default_rng(0).standard_normal((50, 24), np.float32)
    params = jax.tree.map(np.zeros_like, loaded.params)
    params["encoder"]["embeddings"]["position"] = table[: len(params["encoder"]["embeddings"]["position"])]
    params["encoder"]["embeddings"]["norm"]["scale"][...] = 1
    module = nn.merge_params(nn.abstract_model(loaded.config)[0], jax.tree.map(jnp.asarray, params))
    found = np.asarray(jax.jit(module.encoder.embed)(batch.input_ids, batch.position_ids))[0, : len(expected)]
    centred = table - table.mean(1, keepdims=True)
    np.testing.assert_allclose(found, (centred / centred.std(1, keepdims=True))[np.array(expected)], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "klue", "camembert"])
def test_hidden_states_as_in_transformers(tmp_path, family):
    stock = checkpoints.model(family)
    directory = checkpoints.save(tmp_path / family, family, stock)
    model, tokenizer = jaxplm.load(str(directory))
    assert isinstance(model, nn.MaskedLM)
    texts = [text.format(tokenizer.pad_token) for text in TEXTS]
    encoded, batch = packed(hf.load(str(directory)), texts)
    found = np.asarray(jax.jit(model.encoder.__call__)(batch.input_ids, batch.segment_ids, batch.position_ids))[0]
    for i, text in enumerate(texts):
        with torch.no_grad():
            output = stock(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        expected = output.hidden_states[-1][0].numpy()
        inputs = tokenizer(text, return_tensors="np")
        by_itself = np.asarray(model.hidden_states(inputs["input_ids"], inputs["attention_mask"]))[0]
        np.testing.assert_allclose(by_itself, expected, atol=2e-5)
        np.testing.assert_allclose(found[encoded.offsets[i] : encoded.offsets[i + 1]], expected, atol=2e-5)
