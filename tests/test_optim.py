"""What moves and what does not: frozen layers of a stack, gradual unfreezing, layer-wise rates."""

import jax
import numpy as np
import optax
import pytest
from helpers import random_batch, tiny_config, trainer

from jaxplm import config, nn
from jaxplm.engine import optim
from jaxplm.nn import paths

pytestmark = pytest.mark.slow

PARAMS = nn.random_params(tiny_config(), 0)


def moved(before, after) -> dict[str, list[bool]]:
    """For each leaf, or for each layer of a stacked one, whether it changed."""
    changed = {}
    for name, old in paths.named(before).items():
        new = np.asarray(paths.named(after)[name])
        layers = zip(np.asarray(old), new, strict=True) if paths.stack_of(name) else [(np.asarray(old), new)]
        changed[name] = [not np.array_equal(a, b) for a, b in layers]
    return changed


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_frozen_lower_layers_stay_bitwise_and_the_rest_moves(decay):
    state, step, put = trainer(tiny_config(dropout=0.1), freeze=("encoder/embeddings", "encoder/blocks/[01]/"), layer_decay=decay, warmup=0)
    before = jax.tree.map(np.array, state.params)
    for i in range(3):
        state, _ = step(state, put(random_batch(seed=i)))
    for name, layers in moved(before, state.params).items():
        if paths.stack_of(name):
            assert layers == [False, False, True], name
        else:
            assert layers == [not name.startswith("encoder/embeddings/")], name
    moments = [leaf for path, leaf in paths.named(state.opt_state).items() if path.endswith("blocks/mlp/up/kernel")]
    assert len(moments) == 2
    assert all(not np.asarray(leaf)[:2].any() and np.asarray(leaf)[2].any() for leaf in moments)


def test_frozen_lower_layers_cost_no_backward_pass():
    def flops(*freeze: str) -> float:
        state, step, put = trainer(tiny_config(layers=6), freeze=freeze, compute=nn.Compute(unroll=True))
        return step.lower(state, put(random_batch())).compile().cost_analysis()["flops"]

    whole, lower, all_but_head = flops(), flops("encoder/embeddings", "encoder/blocks/[0-3]/"), flops("encoder/")
    assert all_but_head < lower < whole
    assert lower - all_but_head < 0.45 * (whole - all_but_head)  # two of six blocks have a backward pass


def test_gradual_unfreezing_opens_a_block_at_a_time_from_the_top():
    state, step, put = trainer(tiny_config(), unfreeze_every=2, warmup=0, schedule="constant", weight_decay=0.1)
    for i in range(10):
        before = jax.tree.map(np.array, state.params)
        state, _ = step(state, put(random_batch(seed=i)))
        found = moved(before, state.params)
        assert found["mlm_head/dense/kernel"] == [True]
        assert found["encoder/blocks/mlp/up/kernel"] == [i >= 6, i >= 4, i >= 2], i
        assert found["encoder/embeddings/position"] == [i >= 8], i


def test_unfreezing_keeps_what_is_frozen_frozen():
    state, step, put = trainer(tiny_config(), unfreeze_every=1, freeze=("encoder/embeddings/word$", "encoder/blocks/0/"), warmup=0)
    before = jax.tree.map(np.array, state.params)
    for i in range(6):
        state, _ = step(state, put(random_batch(seed=i)))
    found = moved(before, state.params)
    assert found["encoder/blocks/attention/qkv/kernel"] == [False, True, True]
    assert found["encoder/embeddings/word"] == [False]
    assert found["encoder/embeddings/position"] == [True]


def test_the_first_update_is_adamw_with_bias_correction():
    settings = config.Train(steps=100, learning_rate=1e-2, warmup=0, weight_decay=0.1, clip=0.0)
    tx = optim.optimizer(settings, 100, PARAMS).transformation
    grads = jax.tree.map(np.ones_like, PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.device_get(jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS))
    for name, update in paths.named(updates).items():
        decay = 0.1 * np.asarray(paths.named(PARAMS)[name]) if optim.decays(name) else 0.0
        np.testing.assert_allclose(update, -1e-2 * (1 + decay), rtol=2e-4, err_msg=name)
        assert np.isfinite(np.asarray(paths.named(PARAMS)[name]) + update).all()


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_it_is_optax_adamw(clip):
    """Five updates equal those of optax's own chain; one of them that is not finite changes nothing."""
    settings = config.Train(steps=10, learning_rate=1e-2, warmup=0, weight_decay=0.1, clip=clip)
    tx = optim.optimizer(settings, 10, PARAMS).transformation
    mask = paths.by_path(lambda name, _: optim.decays(name), PARAMS)
    adamw = optax.adamw(optim.schedule(settings, 10), b1=settings.beta1, b2=settings.beta2, eps=settings.epsilon, weight_decay=0.1,
                        mask=mask)
    expected = optax.chain(*[optax.clip_by_global_norm(clip)] * bool(clip), adamw)
    rng = np.random.default_rng(0)
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = jax.jit(tx.update), jax.jit(expected.update)
        state, other = tx.init(PARAMS), expected.init(PARAMS)
        for i in range(5):
            grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), PARAMS)
            if i == 2:
                spoiled = jax.tree.map(lambda leaf: leaf * np.float32("nan"), grads)
                _, after = ours(spoiled, state, PARAMS, finite=False)
                for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
                    if np.ndim(new):
                        np.testing.assert_array_equal(new, old)
            updates, state = ours(grads, state, PARAMS)
            wanted, other = theirs(grads, other, PARAMS)
            for name, update in paths.named(updates).items():
                np.testing.assert_allclose(update, paths.named(wanted)[name], rtol=2e-5, atol=1e-8, err_msg=f"{name}, update {i}")


def test_new_rows_are_trained_alone_at_first():
    params = PARAMS
    first = 1000  # of 1,013 tokens
    settings = config.Train(learning_rate=0.1, warmup=0, schedule="constant", weight_decay=0.1)
    start = optim.new_rows_first(params, first, 2)
    tx = optim.optimizer(settings, 10, params, start).transformation
    state, gradient = tx.init(params), jax.tree.map(np.ones_like, params)
    move = jax.jit(tx.update)
    with jax.numpy_dtype_promotion("standard"):
        for i in range(3):
            updates, state = move(gradient, state, params)
            for name, update in paths.named(updates).items():
                update = np.asarray(update)
                if name in ("encoder/embeddings/word", "mlm_head/bias"):
                    assert update[first:].all()
                    assert update[:first].any() == (i == 2), name
                else:
                    assert update.any() == (i == 2), name


def test_a_pooler_without_a_gradient_is_carried_along_bitwise():
    state, step, put = trainer(tiny_config(pooler=True), warmup=0, schedule="constant", weight_decay=1.0)
    before = jax.tree.map(np.array, state.params)
    state, _ = step(state, put(random_batch()))
    found = moved(before, state.params)
    assert found["pooler/kernel"] == found["pooler/bias"] == [False]
    assert found["mlm_head/dense/kernel"] == [True]


def two_encoders() -> dict:
    """The parameters of two encoders, of 2 and of 4 blocks, below other names than the package's, and of a head."""
    def encoder(blocks: int) -> dict:
        return {"embeddings": {"word": np.ones((7, 3), np.float32)}, "blocks": {"mlp": {"kernel": np.ones((blocks, 3, 3), np.float32)}}}

    return {"generator": encoder(2), "discriminator": {"encoder": encoder(4)}, "head": {"kernel": np.ones((3, 2), np.float32)}}


def test_stacks_are_found_in_any_module():
    params = two_encoders()
    assert paths.stack_sizes(params) == {"generator/blocks/": 2, "discriminator/encoder/blocks/": 4}
    assert paths.stack_sizes(PARAMS) == {"encoder/blocks/": 3}
    assert paths.stack_of("head/kernel") is None and paths.stack_of("generator/embeddings/word") is None
    scale = paths.named(optim.layer_scale(params, 0.5))
    np.testing.assert_array_equal(scale["generator/blocks/mlp/kernel"].ravel(), [0.25, 0.5])
    np.testing.assert_array_equal(scale["discriminator/encoder/blocks/mlp/kernel"].ravel(), [0.0625, 0.125, 0.25, 0.5])
    found = [float(scale[name]) for name in ("generator/embeddings/word", "discriminator/encoder/embeddings/word", "head/kernel")]
    assert found == [0.125, 0.5**5, 1]
    frozen = paths.named(optim.frozen_layers(params, ("generator/blocks/0/", "discriminator/encoder/embeddings")))
    assert frozen["generator/blocks/mlp/kernel"].tolist() == [True, False]
    assert {name for name, mask in frozen.items() if mask.all()} == {"discriminator/encoder/embeddings/word"}


def test_leaves_of_a_stack_have_one_length():
    params = two_encoders()
    params["generator"]["blocks"]["norm"] = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="generator/blocks/"):
        paths.stack_sizes(params)
