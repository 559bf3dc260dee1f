"""Rows for new tokens in the table, the tied decoder and its bias, compared with transformers' own resize."""

import checkpoints
import helpers
import jax
import numpy as np
import pytest
import transformers
from checkpoints import torch
from messages import refuses

from jaxplm import hf, nn
from jaxplm.config import choices
from jaxplm.errors import UserError
from jaxplm.nn import paths
from jaxplm.vocab.append import append_tokens
from jaxplm.vocab.resize import BIAS, WORD, resize_embeddings

PIECES = [[5, 9], [7], [400, 401, 402, 5]]
WORDS = {"bert": ["quickly", "##ing", "dogs", "읽다"], "roberta": ["Ġquickly", "Ġfoxes", "modelling", "Ġqqq"]}


def table(params):
    return np.asarray(params["encoder"]["embeddings"]["word"]), np.asarray(params["mlm_head"]["bias"])


@pytest.fixture(scope="module")
def model():
    config, random = helpers.tiny_config(), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32) / 8, nn.abstract_model(config)[1])
    params["encoder"]["embeddings"]["word"][config.vocab_size :] = 0
    params["mlm_head"]["bias"][config.vocab_size :] = 0
    return params, config


def resized(model, new_size=1016, pieces=PIECES, **options):
    return resize_embeddings(*model, new_size, pieces, **options)


@pytest.mark.parametrize("init", choices("vocab.init"))
@pytest.mark.parametrize("new", [3, 200])
def test_old_rows_are_bitwise_and_pads_zero(model, init, new):
    pieces = [[5 + i, 9] for i in range(new)]
    params, config = resized(model, 1013 + new, pieces, init=init)
    (old_word, old_bias), (word, bias) = table(model[0]), table(params)
    assert config.vocab_size == 1013 + new
    assert word.shape == (config.padded_vocab, 120) and bias.shape == (config.padded_vocab,)
    assert word.dtype == bias.dtype == np.float32
    assert word[:1013].tobytes() == old_word[:1013].tobytes() and bias[:1013].tobytes() == old_bias[:1013].tobytes()
    assert not word[1013 + new :].any() and not bias[1013 + new :].any()
    assert all(word[1013 : 1013 + new].any(axis=1))
    others = paths.named(params).keys() - {WORD, BIAS}
    assert all(paths.named(params)[name] is paths.named(model[0])[name] for name in others)
    assert nn.abstract_model(config)[1]["encoder"]["embeddings"]["word"].shape == word.shape


def test_subword_mean(model):
    word, bias = table(resized(model)[0])
    old_word, old_bias = table(model[0])
    for i, pieces in enumerate(PIECES):
        np.testing.assert_allclose(word[1013 + i], old_word[pieces].mean(axis=0), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(bias[1013 + i], old_bias[pieces].mean(), rtol=1e-6)
    assert np.array_equal(word[1014], old_word[7])


def test_mean_and_normal(model):
    n, old_word = 100, table(model[0])[0][:1013]
    pieces = [[5]] * n
    word, bias = table(resized(model, 1013 + n, pieces, init="mean")[0])
    new = word[1013 : 1013 + n] - old_word.mean(axis=0, keepdims=True)
    assert 0.008 < np.mean(new.std(axis=0) / old_word.std(axis=0)) < 0.012
    np.testing.assert_allclose(bias[1013 : 1013 + n], table(model[0])[1][:1013].mean(), rtol=1e-5)
    word, bias = table(resized(model, 1013 + n, pieces, init="normal")[0])
    assert 0.019 < word[1013 : 1013 + n].std() < 0.021 and not bias[1013:].any()
    for init in ("mean", "normal"):
        same, other = (table(resized(model, 1013 + n, pieces, init=init, seed=seed)[0])[0] for seed in (0, 1))
        assert np.array_equal(same, table(resized(model, 1013 + n, pieces, init=init)[0])[0])
        assert not np.array_equal(same, other)


def test_spare_rows_are_taken_first(model):
    """A table with rows for more ids than the tokenizer has."""
    params, config = resized(model, 1003, [[5], [6, 7]])  # 1,001 old ids, rows for 1,013
    assert config.vocab_size == 1013
    word, old = table(params)[0], table(model[0])[0]
    assert word[:1001].tobytes() == old[:1001].tobytes() and word[1003:].tobytes() == old[1003:].tobytes()
    assert np.array_equal(word[1001], old[5])


@pytest.mark.parametrize(("new_size", "pieces", "options", "error", "words"), [
    (1017, PIECES, {}, ValueError, ("1014", "1013")),
    (1016, [[5], [1013], [5]], {}, ValueError, ("pieces", "1013")),
    (1016, [[5], [], [5]], {}, ValueError, ("pieces",)),
    (1016, PIECES, {"init": "zero"}, UserError, ("vocab.init='zero'", "subword_mean", "mean", "normal")),
])
def test_refused(model, new_size, pieces, options, error, words):
    with refuses(*words, error=error):
        resized(model, new_size, pieces, **options)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_as_in_transformers(family, tmp_path):
    """An export of the resized model in stock transformers, compared with transformers' own resize of the original."""
    source = checkpoints.save(tmp_path / "source", family)
    loaded = hf.load(str(source))
    appended = append_tokens(loaded.tokenizer, WORDS[family])
    old_size, spare = appended.old_size, loaded.config.vocab_size - appended.old_size  # rows of the checkpoint that no token has
    assert spare > 0
    pieces, new_size = appended.pieces + [[5, 6]] * spare, old_size + len(appended.tokens) + spare  # grow past these in any case
    params, config = resize_embeddings(loaded.params, loaded.config, new_size, pieces)
    target = hf.save(tmp_path / "target", config, params, appended.tokenizer, loaded.hf_config)

    with checkpoints.listening() as heard:
        stock = transformers.AutoModelForMaskedLM.from_pretrained(target).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    assert heard == []
    decoder = stock.get_output_embeddings()
    assert decoder.weight is stock.get_input_embeddings().weight
    assert stock.config.vocab_size == config.vocab_size == new_size > loaded.config.vocab_size
    assert decoder.weight.shape[0] == decoder.bias.shape[0] == new_size
    if family == "roberta":
        assert stock.lm_head.decoder.weight is stock.roberta.embeddings.word_embeddings.weight
        assert stock.lm_head.decoder.bias is stock.lm_head.bias
    inputs = tokenizer(["the quickly modelling foxes dogs", "the dog reads"], padding=True, return_tensors="pt")
    assert int(inputs["input_ids"][0].max()) >= old_size > int(inputs["input_ids"][1].max())
    real = inputs["attention_mask"].numpy() == 1
    with torch.no_grad():
        theirs = stock(**inputs).logits.numpy()
    module = nn.merge_params(nn.abstract_model(config)[0], params)
    ours = module.mlm_logits(*(inputs[name].numpy() for name in ("input_ids", "attention_mask")))
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], atol=1e-4)

    own = transformers.AutoModelForMaskedLM.from_pretrained(source).eval()
    with torch.no_grad():
        # The text without new tokens: old logits are unchanged, a new one is the mean of its pieces'.
        before = own(**{name: value[1:] for name, value in inputs.items()}).logits.numpy()[0, :, :old_size]
        np.testing.assert_allclose(theirs[1, real[1], :old_size], before[real[1]], atol=1e-5)
        mean = np.stack([before[:, parts].mean(axis=1) for parts in pieces], axis=1)
        np.testing.assert_allclose(theirs[1, real[1], old_size:], mean[real[1]], atol=1e-4)
        own.resize_token_embeddings(new_size, mean_resizing=False)
        assert own.get_output_embeddings().bias.shape == decoder.bias.shape
        own.get_input_embeddings().weight[old_size:] = decoder.weight[old_size:]
        own.get_output_embeddings().bias[old_size:] = decoder.bias[old_size:]
        np.testing.assert_allclose(own(**inputs).logits.numpy()[real], theirs[real], atol=1e-5)
