"""What saves memory: blocks that the backward pass makes again, attention and logits in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_jax, random_batch, tiny_config

from jaxplm import config, nn
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.nn import Compute
from jaxplm.nn.attention import chunked
from jaxplm.tasks.mlm import MaskedLanguageModelling

pytestmark = pytest.mark.slow


def gradient_with(compute: Compute, shape: nn.EncoderConfig, logit_parts: int = 1):
    """Jitted params, batch, key → loss and gradient of masked language modelling."""
    graph, _ = nn.abstract_model(shape)
    task = MaskedLanguageModelling(logit_parts=logit_parts)
    return jax.jit(jax.value_and_grad(lambda params, batch, key: task.sums(
        nn.merge_params(graph, params), batch, key=key, compute=compute)["loss"]))


def assert_same(found, loss, gradient, wanted, tolerance: float) -> None:
    """Losses to 1e-6 of their size, gradients to `tolerance` of each leaf's largest value."""
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize(("operands", "unroll"), [("float32", False), ("bfloat16", True)])
def test_remat_changes_no_number(operands, unroll):
    """The masks of dropout are recomputed, bit by bit the same."""
    shape = tiny_config(layers=2, dropout=0.1, attention_dropout=0.1)
    params, batch = nn.random_params(shape, 0), as_jax(random_batch())
    (loss, wanted), *others = (
        gradient_with(Compute(operands=operands, unroll=unroll, remat=remat), shape)(params, batch, jax.random.key(3))
        for remat in ("none", "dots", "blocks"))
    for found, gradient in others:
        assert_same(found, loss, gradient, wanted, 1e-6)


def test_remat_saves_memory_in_long_rows():
    shape = tiny_config(layers=6, max_positions=256, dropout=0.1, attention_dropout=0.1)
    _, params = nn.abstract_model(shape)
    taken = [gradient_with(Compute(remat=remat), shape).lower(params, random_batch(4, 256), jax.random.key(0)).compile()
             .memory_analysis().temp_size_in_bytes for remat in ("blocks", "dots", "none")]
    assert taken[0] < 0.6 * taken[1] < 0.6 * taken[2], taken


@pytest.mark.parametrize(("remat", "unroll"), [("none", True), ("dots", False), ("blocks", False)])
def test_remat_is_done_in_a_loop(remat, unroll):
    """Unrolled on a CPU it would take time and save nothing."""
    resolved = resolve_compute(config.Compute(remat=remat), sharding.make_mesh(config.Mesh()))
    assert (resolved.remat, resolved.unroll) == (remat, unroll)


@pytest.mark.parametrize("remat", ["none", "dots", "blocks"])
def test_attention_in_parts_changes_no_number(monkeypatch, remat):
    """A head of one row at a time, in a model with dropout, alone and beneath remat."""
    for limit in ("_WHOLE", "_FORWARD", "_BACKWARD"):
        monkeypatch.setattr(chunked, limit, 1)
    shape = tiny_config(layers=2, dropout=0.1, attention_dropout=0.1)
    params, batch = nn.random_params(shape, 0), as_jax(random_batch())
    (loss, wanted), (found, gradient) = (
        gradient_with(Compute(attention=kernel, remat=remat), shape)(params, batch, jax.random.key(3)) for kernel in ("plain", "chunked"))
    assert_same(found, loss, gradient, wanted, 2e-6)


def test_attention_in_parts_takes_less_memory_in_long_rows():
    """Eight times the length at the same number of tokens: the scores would be eight times as many."""
    shape = tiny_config(layers=2, max_positions=2048, dropout=0.1, attention_dropout=0.1)
    _, params = nn.abstract_model(shape)
    taken = {(kernel, length): gradient_with(Compute(attention=kernel), shape)
             .lower(params, random_batch(2048 // length, length), jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
             for kernel in ("plain", "chunked") for length in (256, 2048)}
    assert taken["plain", 2048] > 4 * taken["plain", 256]
    assert taken["chunked", 2048] < 0.2 * taken["plain", 2048], taken


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
def test_logits_in_parts_are_the_same_logits(operands):
    """Also where the parts do not divide the masked positions."""
    shape = tiny_config(layers=2, dropout=0.1)
    params, batch = nn.random_params(shape, 0), as_jax(random_batch())
    slots = batch.mlm_labels.shape[1]
    assert slots % 3
    loss, wanted = gradient_with(Compute(operands=operands), shape)(params, batch, jax.random.key(3))
    for parts in (3, slots, 1000):
        found, gradient = gradient_with(Compute(operands=operands), shape, parts)(params, batch, jax.random.key(3))
        assert_same(found, loss, gradient, wanted, 1e-5)


def test_logits_in_parts_take_less_memory():
    shape = tiny_config(vocab_size=50_000)
    _, params = nn.abstract_model(shape)
    taken = [gradient_with(Compute(), shape, parts).lower(params, random_batch(32, 64, masked=32), jax.random.key(0)).compile()
             .memory_analysis().temp_size_in_bytes for parts in (8, 1)]
    assert taken[0] < 0.5 * taken[1], taken
