"""exBERT's extension: the formula of the paper, its initial parameters, and that the base does not change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extensions import (  # noqa: F401 - fixtures
    FREEZE,
    TOKENS,
    base_checkpoint,
    call,
    every_layer,
    extended,
    inside,
    logits,
    masked_logits,
    new_rows,
    old_text,
    small_extended,
)
from helpers import random_batch, same, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from scipy.special import erf

from jaxplm import nn
from jaxplm.engine import optim
from jaxplm.nn import paths
from jaxplm.nn.exbert.init import narrowed
from jaxplm.nn.exbert.modules import GATE_SCALE

# ---------------------------------------------------------------- the formula

def norm(x, layer, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * layer["scale"] + layer["bias"]


def block(h, p, n, eps):
    """One post-LayerNorm block in plain float64: h [L, D] → [L, D]."""
    at = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[n], p)
    qkv = np.einsum("ld,dihk->ilhk", h, at["attention"]["qkv"]["kernel"]) + at["attention"]["qkv"]["bias"][:, None]
    scores = np.einsum("lhk,mhk->hlm", qkv[0], qkv[1]) / np.sqrt(qkv.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hlm,mhk,hkd->ld", weights, qkv[2], at["attention"]["out"]["kernel"]) + at["attention"]["out"]["bias"]
    x = norm(h + mixed, at["attention"]["norm"], eps)
    up = x @ at["mlp"]["up"]["kernel"] + at["mlp"]["up"]["bias"]
    up = up * 0.5 * (1 + erf(up / np.sqrt(2)))
    return norm(x + up @ at["mlp"]["down"]["kernel"] + at["mlp"]["down"]["bias"], at["mlp"]["norm"], eps)


@pytest.mark.slow
def test_every_layer_is_the_papers_formula(tiny):
    config, params = tiny
    ids = np.random.default_rng(1).integers(5, config.total_vocab, (1, 11)).astype(np.int32)
    places = np.arange(11, dtype=np.int32)[None]
    every = np.asarray(call((nn.abstract_model(config)[0], every_layer), params, ids, np.ones_like(ids), places))[:, 0]

    table = np.concatenate([params["encoder"]["embeddings"]["word"][: config.vocab_size],
                            params["encoder"]["extension"]["word"][:TOKENS]])
    e = params["encoder"]["embeddings"]
    h = norm((table[ids[0]] + e["position"][:11] + e["token_type"][0]).astype(np.float64), e["norm"], config.norm_eps)
    np.testing.assert_allclose(every[0], h, atol=1e-5)
    own, gates = params["encoder"]["extension"]["blocks"], []
    w, b = (GATE_SCALE * own["gate"][name].astype(np.float64) for name in ("kernel", "bias"))
    for n in range(config.layers):
        g = 1 / (1 + np.exp(-(h @ w[n] + b[n])))[:, None]
        base, extension = (block(h, {name: p[name] for name in ("attention", "mlp")}, n, config.norm_eps)
                           for p in (params["encoder"]["blocks"], own))
        h = g * base + (1 - g) * extension
        np.testing.assert_allclose(every[n + 1], h, atol=2e-5)
        gates.append(g)
    assert np.min(gates) < 0.4 < 0.5 < np.max(gates), "closed gates would show nothing"


@pytest.mark.slow
def test_logits_are_those_of_both_decoders_by_token_id(tiny):
    config, params = tiny
    ids = np.random.default_rng(1).integers(5, config.total_vocab, (2, 9)).astype(np.int32)
    graph, _ = nn.abstract_model(config)
    found, x = map(np.asarray, call((graph, inside), params, ids))
    assert found.shape == (2, 9, 1013 + TOKENS)
    table = np.concatenate([params["encoder"]["embeddings"]["word"][:1013], params["encoder"]["extension"]["word"][:TOKENS]])
    bias = np.concatenate([params["mlm_head"]["bias"][:1013], params["mlm_extension"]["bias"][:TOKENS]])
    np.testing.assert_allclose(found, x.astype(np.float64) @ table.T + bias, atol=1e-4)
    padded = call((graph, masked_logits), params, random_batch(rows=2, vocab=config.total_vocab))
    assert padded.shape[-1] == 1013 + 128
    assert (padded[..., config.total_vocab :] < -1e8).all()


# ---------------------------------------------------------------- exactly one row

@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1013 + TOKENS - 1), min_size=6, max_size=6))
def test_each_token_has_one_row_and_its_gradient_goes_to_that_row_only(ids):
    """The original adds row 0 of the extension to base tokens, and the row of [PAD] to new ones."""
    given_ids = jnp.asarray([ids], jnp.int32)
    words = ROWS(ONE, TWO, given_ids)
    table = np.concatenate([ONE[:1013], TWO[:TOKENS]])
    np.testing.assert_array_equal(words[0], table[ids])
    old, new = ROW_GRADIENTS(ONE, TWO, given_ids)
    seen = np.concatenate([np.asarray(old)[:1013], np.asarray(new)[:TOKENS]])[:, 0]
    np.testing.assert_array_equal(seen, np.bincount(ids, minlength=1013 + TOKENS))
    assert not np.asarray(old)[1013:].any() and not np.asarray(new)[TOKENS:].any()


def _rows(old, new, ids):
    encoder = nn.abstract_model(dataclasses.replace(tiny_config(), extension=nn.extension_config(tiny_config(), TOKENS, 0.33)))
    abstract = encoder[1]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)
    zeros["encoder"]["extension"]["word"] = new
    return nn.merge_params(encoder[0], zeros).encoder.extension.rows(old, ids)


ONE = np.random.default_rng(0).standard_normal((1024, 120), np.float32)
TWO = np.random.default_rng(1).standard_normal((128, 120), np.float32)
ROWS = jax.jit(_rows)
ROW_GRADIENTS = jax.jit(jax.grad(lambda old, new, ids: _rows(old, new, ids).sum(), argnums=(0, 1)))


# ---------------------------------------------------------------- how it starts

@pytest.mark.slow
def test_on_old_text_the_base_is_reproduced_at_the_start(base):
    """Tolerances for the default gate, relative to the spread of the logits; the weights are far larger than real ones."""
    ids, mask = old_text(base)
    real = mask > 0
    plain = logits(base.config, base.params, ids, mask)[real]
    params, config = extended(base.config, base.params)
    found = logits(config, params, ids, mask)[real]
    assert found.shape[-1] == base.config.vocab_size + TOKENS
    deviation = found[:, : base.config.vocab_size] - plain
    assert 0 < np.sqrt((deviation**2).mean()) < 0.02 * plain.std()
    assert np.abs(deviation).max() < 0.15 * plain.std()


@pytest.mark.slow
@pytest.mark.parametrize(("share", "gate_bias"), [(0.33, 20.0), (1.0, 0.0)])
def test_with_a_closed_gate_or_the_bases_own_widths_it_is_exact(base, share, gate_bias):
    ids, mask = old_text(base)
    plain = logits(base.config, base.params, ids, mask)
    params, config = extended(base.config, base.params, share, gate_bias)
    found = logits(config, params, ids, mask)[..., : base.config.vocab_size]
    np.testing.assert_allclose(found[mask > 0], plain[mask > 0], atol=2e-4)


@pytest.mark.slow
def test_a_narrowed_copy_is_nearer_to_the_base_than_a_random_block(base):
    ids, mask = old_text(base)
    plain = logits(base.config, base.params, ids, mask)
    params, config = extended(base.config, base.params, 0.5, 0.0)
    drawn = nn.random_params(config, 0)["encoder"]["extension"]["blocks"]
    random = {**params, "encoder": {**params["encoder"], "extension": {**params["encoder"]["extension"], "blocks": {
        **jax.tree.map(np.asarray, drawn), "gate": params["encoder"]["extension"]["blocks"]["gate"]}}}}
    errors = [np.square(logits(config, tree, ids, mask)[..., : base.config.vocab_size] - plain).mean() for tree in (params, random)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.slow
def test_narrowed_keeps_what_weighs_most():
    base = tiny_config()
    blocks = jax.tree.map(np.array, nn.random_params(base, 0)["encoder"]["blocks"])
    big = [3, 40, 117]
    blocks["mlp"]["up"]["kernel"][1][:, big] *= 10
    small = nn.ExtensionConfig(1, width=30, heads=5, ffn_width=8)
    found = narrowed(blocks, small)
    kept = {tuple(column) for column in found["mlp"]["up"]["kernel"][1].T}
    assert {tuple(blocks["mlp"]["up"]["kernel"][1][:, i]) for i in big} <= kept
    # Scores of queries and keys: no product of that rank is nearer than the truncated decomposition.
    q, k, _ = (blocks["attention"]["qkv"]["kernel"][0, :, i, 2] for i in range(3))
    own_q, own_k, _ = (found["attention"]["qkv"]["kernel"][0, :, i, 2] for i in range(3))
    exact, near = q @ k.T / 24**0.5, own_q @ own_k.T / 6**0.5
    best = np.sqrt(np.square(np.linalg.svd(exact)[1][6:]).sum())
    np.testing.assert_allclose(np.linalg.norm(exact - near), best, rtol=1e-3)


def test_the_base_is_copied_bitwise_and_not_changed(base):
    before = jax.tree.map(np.copy, base.params)
    params, config = extended(base.config, base.params)
    assert same(before, base.params)
    for name, leaf in paths.named(base.params).items():
        np.testing.assert_array_equal(paths.named(params)[name], leaf)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, nn.abstract_model(config)[1])
    rows, bias = new_rows(config.width)
    np.testing.assert_array_equal(params["encoder"]["extension"]["word"], np.pad(rows, ((0, 128 - TOKENS), (0, 0))))
    np.testing.assert_array_equal(params["mlm_extension"]["bias"], np.pad(bias, (0, 128 - TOKENS)))


@pytest.mark.slow
def test_rows_that_no_token_has_are_cut_so_that_ids_follow_on():
    base = tiny_config()
    params, config = extended(base, jax.tree.map(np.asarray, nn.random_params(base, 0)), first=900)
    assert (config.vocab_size, config.total_vocab) == (900, 900 + TOKENS)
    ids = np.array([[5, 899, 900, 974]], np.int32)
    assert logits(config, params, ids).shape == (1, 4, 900 + TOKENS)
    assert params["encoder"]["embeddings"]["word"].shape == (1024, 120)
    assert not params["encoder"]["embeddings"]["word"][900:].any()


@pytest.mark.slow
def test_mistakes():
    base = tiny_config()
    params = nn.random_params(base, 0)
    again, config = extended(base, params)
    with refuses("extension", "75"):
        extended(config, again)
    with refuses("tokens"):
        nn.extend_params(params, base, nn.extension_config(base, 0, 0.33), *new_rows(base.width, 0))


# ---------------------------------------------------------------- sizes

@pytest.mark.parametrize(("share", "sizes", "of_a_block"), [(0.16, (120, 512), 0.163), (0.33, (252, 1024), 0.332),
                                                            (0.66, (504, 2048), 0.663), (1.0, (768, 3072), 1.0)])
def test_sizes_and_parameters_of_the_paper(share, sizes, of_a_block):
    bert = nn.EncoderConfig("bert", vocab_size=30_522, width=768, layers=12, heads=12, ffn_width=3072, max_positions=512)
    config = dataclasses.replace(bert, extension=nn.extension_config(bert, 17_658, share))
    assert config.extension and (config.extension.width, config.extension.ffn_width) == sizes
    params = nn.abstract_model(config)[1]["encoder"]
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(blocks)) for name, blocks in (
        ("base", params["blocks"]), ("extension", params["extension"]["blocks"]), ("gates", params["extension"]["blocks"]["gate"]))}
    assert count["base"] == 85_054_464
    assert (count["extension"] - count["gates"]) / count["base"] == pytest.approx(of_a_block, abs=1e-3)
    if share == 0.33:
        assert count == {"base": 85_054_464, "extension": 28_249_980, "gates": 12 * 769}  # the paper: 28.3 M


def test_sizes_of_small_models():
    tiny = nn.extension_config(tiny_config(), 10, 0.33)
    assert (tiny.width, tiny.heads, tiny.ffn_width) == (40, 5, 64)
    least = nn.extension_config(tiny_config(), 10, 0.05)
    assert (least.width, least.ffn_width) == (5, 8)


def test_the_recipe_freezes_the_base():
    """A config file does not import the model, so it has a pattern of its own."""
    sizes = nn.extension_config(tiny_config(), TOKENS, 0.33)
    _, params = nn.abstract_model(tiny_config(pooler=True, pair_head=True, extension=sizes))
    frozen = paths.named(optim.frozen_layers(params, FREEZE))
    assert {name for name, mask in frozen.items() if not mask.all()} == {
        name for name in frozen if name.startswith(("encoder/extension/", "mlm_extension/"))}
