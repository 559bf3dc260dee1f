"""An extension in training: what is frozen, meshes, packing, layers."""

import dataclasses

import jax
import numpy as np
import pytest
from extensions import FREEZE, TOKENS, call, hidden, small_extended  # noqa: F401 - fixtures
from helpers import as_jax, random_batch, tiny_config, trainer

from jaxplm import config, nn
from jaxplm.devices import sharding
from jaxplm.engine import optim
from jaxplm.nn import paths
from jaxplm.tasks.mlm import MaskedLanguageModelling

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------- training

MESH_SHAPE = tiny_config(width=128, heads=4, ffn_width=256)
MESH_SHAPE = dataclasses.replace(MESH_SHAPE, extension=nn.extension_config(MESH_SHAPE, TOKENS, 0.5, gate_bias=1.0))


def batch(i: int):
    return random_batch(seed=i, vocab=MESH_SHAPE.total_vocab)


def test_extension_only_leaves_the_base_bitwise_and_without_moments():
    state, step, put = trainer(MESH_SHAPE, freeze=FREEZE, weight_decay=0.1, warmup=0)
    before = jax.tree.map(np.array, state.params)
    moments = {paths.path_name(path) for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state) if leaf.size > 1}
    assert moments and all("encoder/extension/" in name or "mlm_extension/" in name for name in moments)
    for i in range(3):
        state, metrics = step(state, put(batch(i)))
        assert float(metrics["nonfinite"]) == 0
    for name, old in paths.named(before).items():
        own = name.startswith(("encoder/extension/", "mlm_extension/"))
        assert np.array_equal(old, np.asarray(paths.named(state.params)[name])) != own, name


def test_a_frozen_base_costs_less():
    flops = []
    for freeze in ((), FREEZE):
        state, step, put = trainer(MESH_SHAPE, freeze=freeze, compute=nn.Compute(unroll=True))
        flops.append(step.lower(state, put(batch(0))).compile().cost_analysis()["flops"])
    assert flops[1] < 0.8 * flops[0]


def test_all_weights_are_trained_without_freezing():
    state, step, put = trainer(MESH_SHAPE, warmup=0)
    before = jax.tree.map(np.array, state.params)
    state, _ = step(state, put(batch(0)))
    assert all(not np.array_equal(old, np.asarray(paths.named(state.params)[name])) for name, old in paths.named(before).items())


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_eight_devices_equal_one(sizes):
    found = []
    for mesh in (None, sharding.make_mesh(config.Mesh(*sizes))):
        state, step, put = trainer(MESH_SHAPE, mesh, freeze=FREEZE)
        losses = []
        for i in range(4):
            state, metrics = step(state, put(batch(i)))
            losses.append(float(metrics["loss"]) / float(metrics["weight"]))
        assert step.traces == 1
        found.append(losses)
    np.testing.assert_allclose(*found, atol=1e-5)


def test_packed_equals_unpacked(tiny):
    shape, params = tiny
    random = np.random.default_rng(3)
    texts = [random.integers(5, shape.total_vocab, n) for n in (5, 9, 7)]
    of = (nn.abstract_model(shape)[0], hidden)
    row = [np.concatenate(part)[None].astype(np.int32) for part in (
        texts, [np.full(len(t), i + 1) for i, t in enumerate(texts)], [np.arange(len(t)) for t in texts])]
    packed, at = np.asarray(call(of, params, *row))[0], 0
    for text in texts:
        ids = text[None].astype(np.int32)
        alone = call(of, params, ids, np.ones_like(ids), np.arange(len(text), dtype=np.int32)[None])[0]
        np.testing.assert_allclose(packed[at : at + len(text)], alone, atol=2e-5)
        at += len(text)


def test_unrolled_equals_scanned_and_mixed_products_are_close(tiny):
    shape, params = tiny
    graph, _ = nn.abstract_model(shape)
    rows, task = as_jax(random_batch(vocab=shape.total_vocab)), MaskedLanguageModelling()
    scanned, unrolled, mixed, half = (
        jax.jit(lambda p, c=c: task.sums(nn.merge_params(graph, p), rows, key=None, compute=c)["loss"])(params)
        for c in (nn.Compute(), nn.Compute(unroll=True), nn.Compute(operands="bfloat16"), nn.Compute("bfloat16", "bfloat16")))
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-6)
    np.testing.assert_allclose([mixed, half], scanned, rtol=2e-2)


def test_its_layers_freeze_unfreeze_and_scale_as_those_of_the_base():
    state, step, put = trainer(MESH_SHAPE, freeze=("encoder/embeddings", "encoder/(extension/)?blocks/[01]/"), warmup=0)
    before = jax.tree.map(np.array, state.params)
    state, _ = step(state, put(batch(0)))
    for name, old in paths.named(before).items():
        if paths.stack_of(name):
            moved = [not np.array_equal(a, b) for a, b in zip(old, np.asarray(paths.named(state.params)[name]), strict=True)]
            assert moved == [False, False, True], name
    scales = optim.layer_scale(before, 0.5)["encoder"]["extension"]
    np.testing.assert_allclose(np.ravel(scales["blocks"]["gate"]["bias"]), [0.125, 0.25, 0.5])
    assert scales["blocks"]["mlp"]["up"]["kernel"].shape == (3, 1, 1)
    assert scales["word"] == 0.0625
    assert optim.decays("encoder/extension/word") and not optim.decays("encoder/extension/blocks/gate/bias")

    state, step, put = trainer(MESH_SHAPE, unfreeze_every=1, warmup=0)
    for i in range(4):
        before = np.asarray(state.params["encoder"]["extension"]["blocks"]["mlp"]["up"]["kernel"]).copy()
        state, _ = step(state, put(batch(i)))
        after = np.asarray(state.params["encoder"]["extension"]["blocks"]["mlp"]["up"]["kernel"])
        assert [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [i >= 3, i >= 2, i >= 1]
