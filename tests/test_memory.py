"""What saves memory: blocks that are recomputed in the backward pass, chunked attention, chunked logits."""

import jax
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


def gradient_with(compute: Compute, encoder_config: nn.EncoderConfig, logit_parts: int = 1):
    """Return the jitted function params, batch, key → loss and gradient of masked language modelling."""
    graph, _ = nn.abstract_model(encoder_config)
    task = MaskedLanguageModelling(logit_parts=logit_parts)
    return jax.jit(jax.value_and_grad(lambda params, batch, key: task.sums(
        nn.merge_params(graph, params), batch, key=key, compute=compute)["loss"]))


def assert_same(found, loss, gradient, wanted, tolerance: float) -> None:
    """Assert equal losses, to 1e-6 of their size, and gradients, to `tolerance` of each leaf's largest value."""
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(("operands", "unroll"), [("float32", False), ("bfloat16", True)])
def test_remat_changes_no_number(operands, unroll):
    """The masks of dropout are recomputed as they were."""
    encoder_config = tiny_config(layers=2, dropout=0.1, attention_dropout=0.1)
    params, batch = nn.random_params(encoder_config, 0), as_jax(random_batch())
    (loss, wanted), *others = (
        gradient_with(Compute(operands=operands, unroll=unroll, remat=remat), encoder_config)(params, batch, jax.random.key(3))
        for remat in ("none", "dots", "blocks"))
    for found, gradient in others:
        assert_same(found, loss, gradient, wanted, 1e-6)


def test_remat_saves_memory_in_long_rows():
    encoder_config = tiny_config(layers=6, max_positions=256, dropout=0.1, attention_dropout=0.1)
    _, params = nn.abstract_model(encoder_config)
    taken = [gradient_with(Compute(remat=remat), encoder_config).lower(params, random_batch(4, 256), jax.random.key(0)).compile()
             .memory_analysis().temp_size_in_bytes for remat in ("blocks", "dots", "none")]
    assert taken[0] < 0.6 * taken[1] < 0.6 * taken[2], taken


@pytest.mark.parametrize(("remat", "unroll"), [("none", True), ("dots", False), ("blocks", False)])
def test_remat_is_done_in_a_loop(remat, unroll):
    """Unrolled on a CPU, it would take time and save no memory."""
    resolved = resolve_compute(config.Compute(remat=remat), sharding.make_mesh(config.Mesh()))
    assert (resolved.remat, resolved.unroll) == (remat, unroll)


@pytest.mark.parametrize("remat", ["none", "dots", "blocks"])
def test_chunked_attention_changes_no_number(monkeypatch, remat):
    """One head of one row at a time, in a model with dropout, without and with remat."""
    for limit in ("_WHOLE", "_FORWARD", "_BACKWARD"):
        monkeypatch.setattr(chunked, limit, 1)
    encoder_config = tiny_config(layers=2, dropout=0.1, attention_dropout=0.1)
    params, batch = nn.random_params(encoder_config, 0), as_jax(random_batch())
    (loss, wanted), (found, gradient) = (
        gradient_with(Compute(attention=kernel, remat=remat), encoder_config)(params, batch, jax.random.key(3))
        for kernel in ("plain", "chunked"))
    assert_same(found, loss, gradient, wanted, 2e-6)


def test_chunked_attention_takes_less_memory_in_long_rows():
    """With rows eight times as long and the same number of tokens, there are eight times as many scores."""
    encoder_config = tiny_config(layers=2, max_positions=2048, dropout=0.1, attention_dropout=0.1)
    _, params = nn.abstract_model(encoder_config)
    taken = {(kernel, length): gradient_with(Compute(attention=kernel), encoder_config)
             .lower(params, random_batch(2048 // length, length), jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
             for kernel in ("plain", "chunked") for length in (256, 2048)}
    assert taken["plain", 2048] > 4 * taken["plain", 256]
    assert taken["chunked", 2048] < 0.2 * taken["plain", 2048], taken


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
def test_chunked_logits_are_the_same_logits(operands):
    """Also if the number of chunks does not divide the number of masked positions."""
    encoder_config = tiny_config(layers=2, dropout=0.1)
    params, batch = nn.random_params(encoder_config, 0), as_jax(random_batch())
    num_masked = batch.mlm_labels.shape[1]
    assert num_masked % 3
    loss, wanted = gradient_with(Compute(operands=operands), encoder_config)(params, batch, jax.random.key(3))
    for parts in (3, num_masked, 1000):
        found, gradient = gradient_with(Compute(operands=operands), encoder_config, parts)(params, batch, jax.random.key(3))
        assert_same(found, loss, gradient, wanted, 1e-5)


def test_chunked_logits_take_less_memory():
    encoder_config = tiny_config(vocab_size=50_000)
    _, params = nn.abstract_model(encoder_config)
    taken = [gradient_with(Compute(), encoder_config, parts).lower(params, random_batch(32, 64, masked=32), jax.random.key(0)).compile()
             .memory_analysis().temp_size_in_bytes for parts in (8, 1)]
    assert taken[0] < 0.5 * taken[1], taken
