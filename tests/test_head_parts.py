"""Pieces of heads by themselves: poolings against JAX's own reductions, the LSTM against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import torch
from flax import nnx

from jaxplm import nn
from jaxplm.nn.pooling import pool
from jaxplm.nn.recurrent import BiLSTM


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_maximum_and_its_gradient_are_those_of_jax(dtype):
    random = np.random.default_rng(1)
    hidden = jnp.asarray(random.standard_normal((2, 11, 5)), dtype)
    segments = jnp.asarray([[1] * 4 + [2] * 3 + [0] * 4, [1] * 11], jnp.int32)
    first = jnp.zeros((2, 3), jnp.int32)
    weights = jnp.asarray(random.standard_normal((2, 3, 5)), jnp.float32)

    def reference(x):
        inside = segments[:, None] == jnp.arange(1, 4, dtype=jnp.int32)[None, :, None]
        highest = jnp.where(inside[..., None], x[:, None], -100.0).max(2).astype(jnp.float32)
        return jnp.where(inside.any(-1)[..., None], highest, 0.0)

    np.testing.assert_array_equal(pool(hidden, segments, first, "max"), reference(hidden))
    found, expected = (jax.grad(lambda x, f=f: (f(x) * weights).sum())(hidden)
                       for f in (lambda x: pool(x, segments, first, "max"), reference))
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))
    ties = jax.grad(lambda x: pool(x, segments, first, "max").sum())(jnp.zeros_like(hidden))
    assert float(ties.astype(jnp.float32).sum()) == 3 * 5  # one token of each of three units, and not all of them
    lost = pool(hidden.at[0, 2].set(jnp.nan), segments, first, "max")
    assert jnp.isnan(lost[0, 0]).all() and jnp.isfinite(lost[0, 1]).all() and jnp.isfinite(lost[1]).all()


def test_mean_is_exact_in_sixteen_bits():
    hidden = jnp.asarray(np.random.default_rng(2).standard_normal((1, 12, 6)), jnp.bfloat16)
    segments = jnp.asarray([[1] * 7 + [2] * 5], jnp.int32)
    found = pool(hidden, segments, jnp.asarray([[0, 7]], jnp.int32), "mean")
    assert found.dtype == jnp.float32
    wide = np.asarray(hidden, np.float64)[0]
    np.testing.assert_allclose(found[0], [wide[:7].mean(0), wide[7:].mean(0)], atol=1e-6)


@pytest.mark.slow
def test_lstm_is_that_of_pytorch():
    random = np.random.default_rng(4)
    theirs = torch.nn.LSTM(6, 5, bidirectional=True, batch_first=True)
    ours = BiLSTM(6, 5, nnx.Rngs(0))
    weights = {name: 0.7 * random.standard_normal(p.shape).astype(np.float32) for name, p in theirs.named_parameters()}
    theirs.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    x = random.standard_normal((2, 9, 6)).astype(np.float32)
    given = torch.tensor(x, requires_grad=True)
    expected = theirs(given)[0]
    (expected.sin().sum()).backward()

    both = ("l0", "l0_reverse")
    ours.kernel[...] = jnp.stack([weights[f"weight_ih_{d}"].T.reshape(6, 4, 5) for d in both], 1)
    ours.recurrent[...] = jnp.stack([weights[f"weight_hh_{d}"].T.reshape(5, 4, 5) for d in both])
    ours.bias[...] = jnp.stack([(weights[f"bias_ih_{d}"] + weights[f"bias_hh_{d}"]).reshape(4, 5) for d in both])
    params, segments = nn.params_of(ours), jnp.ones((2, 9), jnp.int32)

    def run(params, x):
        module = BiLSTM(6, 5, nnx.Rngs(0))
        nnx.update(module, params)
        y = module(x, segments, nn.Compute())
        return jnp.sin(y).sum(), y

    run = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (_, found), (gradient, to_x) = run(params, x)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(to_x, given.grad.numpy(), atol=1e-5)
    grads = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    for i, d in enumerate(both):
        np.testing.assert_allclose(gradient["kernel"][:, i].reshape(6, 20).T, grads[f"weight_ih_{d}"], atol=1e-5)
        np.testing.assert_allclose(gradient["recurrent"][i].reshape(5, 20).T, grads[f"weight_hh_{d}"], atol=1e-5)
        np.testing.assert_allclose(gradient["bias"][i].reshape(20), grads[f"bias_ih_{d}"], atol=1e-5)
