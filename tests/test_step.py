"""The compiled step: one trace, the same numbers on any mesh, in any number of parts, after any resume."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_batch, same, tiny_config, trainer
from messages import refuses

from jaxplm import config, nn
from jaxplm.devices import sharding
from jaxplm.engine import optim
from jaxplm.nn import paths

MESH_SHAPE = tiny_config(width=128, heads=4, ffn_width=256, vocab_size=1013)


def losses(mesh_sizes: tuple[int, int, int] | None, steps: int = 10, **options) -> list[float]:
    mesh = None if mesh_sizes is None else sharding.make_mesh(config.Mesh(*mesh_sizes))
    state, step, put = trainer(MESH_SHAPE, mesh, **options)
    found = []
    for i in range(steps):
        state, metrics = step(state, put(random_batch(seed=i)))
        found.append(float(metrics["loss"]) / float(metrics["weight"]))
    assert step.traces == 1, "the step was traced more than once"
    return found


@pytest.fixture(scope="module")
def one_device() -> list[float]:
    return losses(None)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_eight_devices_equal_one(one_device, sizes):
    np.testing.assert_allclose(losses(sizes), one_device, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "parts"), [(None, 4), ((2, 1, 1), 4), ((2, 2, 1), 2)])
def test_accumulation_equals_one_batch(one_device, sizes, parts):
    devices = None if sizes is None else sharding.make_mesh(config.Mesh(*sizes), jax.devices()[: np.prod(sizes)])
    state, step, put = trainer(MESH_SHAPE, devices, accumulate=parts)
    for i, expected in enumerate(one_device):
        state, metrics = step(state, put(random_batch(seed=i)))
        assert abs(float(metrics["loss"]) / float(metrics["weight"]) - expected) < 1e-5


@pytest.mark.slow
def test_dropout_is_the_same_on_any_mesh():
    shape = tiny_config(width=128, heads=4, ffn_width=256, dropout=0.3, attention_dropout=0.3)
    found = []
    for sizes in ((1, 1, 1), (4, 2, 1)):
        mesh = sharding.make_mesh(config.Mesh(*sizes), jax.devices()[: np.prod(sizes)])
        state, step, put = trainer(shape, mesh)
        found.append(float(step(state, put(random_batch()))[1]["loss"]))
    assert abs(found[0] - found[1]) < 1e-2


def test_golden_step():
    """One step of a fixed model on a fixed batch. Change the numbers only where the mathematics was meant to change."""
    state, step, put = trainer(tiny_config(), learning_rate=1e-3, warmup=0, schedule="constant")
    _, metrics = step(state, put(random_batch()))
    found = {name: round(float(metrics[name]), 3) for name in ("loss", "weight", "tokens", "grad_norm")}
    assert found == GOLDEN


GOLDEN = {"loss": 157.644, "weight": 23.0, "tokens": 178.0, "grad_norm": 4.239}


@pytest.mark.slow
def test_a_step_is_a_function_of_its_number():
    state, step, put = trainer(tiny_config(dropout=0.2, attention_dropout=0.2))
    copies = jax.tree.map(jnp.copy, state)
    batch = put(random_batch())
    first, _ = step(state, batch)
    again, _ = step(copies, batch)
    assert same(first, again)


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    state, step, put = trainer(tiny_config())
    state.params["mlm_head"]["norm"]["scale"] = state.params["mlm_head"]["norm"]["scale"].at[0].set(jnp.nan)
    before = jax.device_get(state)
    after, metrics = step(state, put(random_batch()))
    assert float(metrics["nonfinite"]) == 1
    assert int(after.step) == 1
    for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(jax.device_get(after.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(before.opt_state), jax.tree.leaves(jax.device_get(after.opt_state)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_frozen_leaves_do_not_move_and_have_no_moments():
    state, step, put = trainer(tiny_config(), freeze=("encoder/",), weight_decay=0.1)
    before = jax.device_get(state.params)
    moments = {paths.path_name(path) for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state) if leaf.size > 1}
    assert moments
    assert not any("encoder" in name for name in moments)
    for i in range(3):
        state, _ = step(state, put(random_batch(seed=i)))
    after = jax.device_get(state.params)
    assert same(before["encoder"], after["encoder"])
    assert not same(before["mlm_head"], after["mlm_head"])


@pytest.mark.slow
def test_the_frozen_step_computes_no_gradient_of_the_encoder():
    costs = []
    for freeze in ((), ("encoder/",)):
        state, step, put = trainer(tiny_config(layers=6), freeze=freeze, compute=nn.Compute(unroll=True))
        costs.append(step.lower(state, put(random_batch())).compile().cost_analysis()["flops"])
    assert costs[1] < 0.55 * costs[0]


@pytest.mark.slow
def test_decay_and_layer_decay_reach_the_right_leaves():
    assert optim.decays("encoder/blocks/mlp/up/kernel")
    assert optim.decays("encoder/embeddings/word")
    for name in ("encoder/blocks/mlp/up/bias", "encoder/blocks/mlp/norm/scale", "mlm_head/norm/bias", "mlm_head/bias"):
        assert not optim.decays(name)
    _, abstract = nn.abstract_model(tiny_config())
    scales = optim.layer_scale(abstract, 0.5)
    np.testing.assert_allclose(np.ravel(scales["encoder"]["blocks"]["mlp"]["up"]["kernel"]), [0.125, 0.25, 0.5])
    assert scales["encoder"]["embeddings"]["word"] == 0.0625
    assert scales["mlm_head"]["bias"] == 1.0
    state, step, put = trainer(tiny_config(), layer_decay=0.5, freeze=("mlm_head/",))
    step(state, put(random_batch()))


@pytest.mark.slow
def test_schedules():
    for name, middle in (("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)):
        rate = optim.schedule(config.Train(learning_rate=2.0, warmup=10, schedule=name), 110)
        assert abs(float(rate(0)) - 0.2) < 1e-6
        assert abs(float(rate(9)) - 2.0) < 1e-6
        assert abs(float(rate(60)) - 2.0 * middle) < 1e-6
    assert float(optim.schedule(config.Train(learning_rate=2.0, warmup=0.0), 10)(10)) == 0.0
    with refuses("train.warmup=10", "10"):
        optim.schedule(config.Train(warmup=10), 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup", "steps"), [(0.06, 100), (10, 1000), (0, 37)])
def test_schedules_are_those_of_optax(name, warmup, steps):
    peak, warm = 5e-4, round(warmup * steps) if warmup < 1 else warmup
    found = jax.vmap(optim.schedule(config.Train(learning_rate=peak, warmup=warmup, schedule=name), steps))(jnp.arange(steps + 5))
    after = {"linear": optax.linear_schedule(peak, 0.0, steps - warm), "cosine": optax.cosine_decay_schedule(peak, steps - warm),
             "constant": optax.constant_schedule(peak)}[name]
    rising = optax.linear_schedule(0.0, peak, max(warm, 1))
    with jax.numpy_dtype_promotion("standard"):
        step = jnp.arange(steps + 5)
        wanted = np.where(step < warm, rising(step + 1), after(step - warm))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7 * peak)


@pytest.mark.slow
def test_every_parameter_has_a_rule_and_every_moment_follows_it():
    mesh = sharding.make_mesh(config.Mesh(2, 2, 2))
    state, _, _ = trainer(MESH_SHAPE, mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        assert leaf.sharding.spec == sharding.spec_of(paths.path_name(path), leaf.shape, mesh)
    word = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
            if paths.path_name(path).endswith("embeddings/word")]
    assert len(word) == 2
    assert all(leaf.sharding.spec == state.params["encoder"]["embeddings"]["word"].sharding.spec for leaf in word)
    with refuses("encoder/blocks/adapter/kernel", "rule"):
        sharding.spec_of("encoder/blocks/adapter/kernel", (3, 4), mesh)
    with refuses("mesh.tensor=2", "5"):
        sharding.spec_of("encoder/blocks/attention/out/kernel", (3, 5, 24, 120), mesh)


def test_impossible_meshes_and_batches():
    for mesh, message in ((config.Mesh(3), "8 devices"), (config.Mesh(-1, -1), "-1"),
                          (config.Mesh(16), "8 devices")):
        with refuses(message):
            sharding.make_mesh(mesh)
    with refuses("train.batch_size=12", "8"):
        sharding.check_batch(12, 1, sharding.make_mesh(config.Mesh()))
