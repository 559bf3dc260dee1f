"""The encoder: which tokens a token can see, packing, precision, dropout, and the pieces with hand-written backward passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_jax, random_batch, tiny_config

from jaxplm import nn
from jaxplm.data.batch import Batch
from jaxplm.nn.dropout import dropout, dropout_mask
from jaxplm.nn.layers import LayerNorm, gelu, layer_norm
from jaxplm.tasks.mlm import MaskedLanguageModelling, cross_entropy


@pytest.fixture(scope="module")
def model():
    config = tiny_config()
    graph, _ = nn.abstract_model(config)
    return graph, nn.random_params(config, 0)


def packed_and_alone():
    """Three texts of 5, 9 and 7 tokens: in one row, and one per row."""
    random = np.random.default_rng(3)
    lengths, length = [5, 9, 7], 24
    texts = [random.integers(5, 1013, n) for n in lengths]
    row = np.zeros((3, 1, length), np.int32)
    alone = np.zeros((3, 3, length), np.int32)
    at = 0
    for i, text in enumerate(texts):
        for where, begin in ((row[:, 0], at), (alone[:, i], 0)):
            where[0, begin : begin + len(text)] = text
            where[1, begin : begin + len(text)] = i + 1
            where[2, begin : begin + len(text)] = np.arange(len(text))
        at += len(text)
    return row, alone, lengths


@pytest.mark.slow
def test_packed_hidden_states_and_gradients_equal_unpacked(model):
    graph, params = model
    row, alone, lengths = packed_and_alone()
    weights = jax.random.normal(jax.random.key(1), (120,))

    def pooled(params, ids, segments, positions):
        hidden = nn.merge_params(graph, params).encoder(ids, segments, positions)
        real = (segments > 0)[..., None]
        return jnp.where(real, jnp.sin(hidden * weights[None, None]), 0.0).sum(), hidden

    run = jax.jit(jax.value_and_grad(pooled, has_aux=True))
    (one, packed), packed_grad = jax.device_get(run(params, *row))
    (many, unpacked), alone_grad = jax.device_get(run(params, *alone))
    assert abs(one - many) < 1e-3
    at = 0
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(packed[0, at : at + n], unpacked[i, :n], atol=1e-5)
        at += n
    for a, b in zip(jax.tree.leaves(packed_grad), jax.tree.leaves(alone_grad), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.slow
def test_no_token_sees_another_text(model):
    graph, params = model
    row, _, _ = packed_and_alone()

    def second_text(table):
        changed = jax.tree.map(lambda x: x, params)
        changed["encoder"]["embeddings"]["word"] = table
        hidden = nn.merge_params(graph, changed).encoder(*map(jnp.asarray, row))
        return (hidden[0, 5:14] ** 3).sum()

    seen = np.abs(np.asarray(jax.jit(jax.grad(second_text))(params["encoder"]["embeddings"]["word"]))).sum(-1) > 0
    own, others = set(row[0, 0, 5:14]), set(row[0, 0, :5]) | set(row[0, 0, 14:21])
    assert all(seen[i] for i in own)
    assert not any(seen[i] for i in others - own)


@pytest.mark.slow
def test_unrolled_equals_scanned(model):
    graph, params = model
    batch = as_jax(random_batch())
    task = MaskedLanguageModelling()
    results = [jax.jit(lambda p, u=unroll: task.sums(nn.merge_params(graph, p), batch, key=None, compute=nn.Compute(unroll=u)))(params)
               for unroll in (False, True)]
    np.testing.assert_allclose(results[0]["loss"], results[1]["loss"], rtol=1e-6)


@pytest.mark.slow
def test_low_precision_products_are_close_to_float32(model):
    graph, params = model
    batch = as_jax(random_batch())
    task = MaskedLanguageModelling()

    def loss(params, compute):
        return task.sums(nn.merge_params(graph, params), batch, key=None, compute=compute)["loss"]

    exact, mixed = (jax.device_get(jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, nn.Compute(operands=dtype)))
                    for dtype in ("float32", "bfloat16"))
    np.testing.assert_allclose(exact[0], mixed[0], rtol=2e-2)
    for a, b in zip(jax.tree.leaves(exact[1]), jax.tree.leaves(mixed[1]), strict=True):
        assert np.abs(a - b).max() <= 0.05 * np.abs(a).max() + 1e-6
    assert exact[0] != mixed[0]


@pytest.mark.slow
def test_cross_entropy_and_its_gradient_against_optax():
    import optax

    logits = jax.random.normal(jax.random.key(0), (3, 4, 50)) * 5
    labels = jax.random.randint(jax.random.key(1), (3, 4), 0, 50)
    ours, correct = jax.jit(cross_entropy)(logits, labels)
    np.testing.assert_allclose(ours, optax.softmax_cross_entropy_with_integer_labels(logits, labels), atol=1e-5)
    np.testing.assert_array_equal(correct, np.asarray(logits).argmax(-1) == labels)
    weights = jax.random.uniform(jax.random.key(2), (3, 4))
    gradients = [jax.jit(jax.grad(lambda x, f=f: (f(x) * weights).sum()))(logits) for f in (
        lambda x: cross_entropy(x, labels)[0], lambda x: optax.softmax_cross_entropy_with_integer_labels(x, labels))]
    np.testing.assert_allclose(*gradients, atol=1e-6)


@pytest.mark.slow
def test_pad_rows_of_the_vocabulary_get_no_probability_and_no_gradient(model):
    graph, params = model
    batch = as_jax(random_batch())

    def loss(params):
        return MaskedLanguageModelling().sums(nn.merge_params(graph, params), batch, key=None, compute=nn.Compute())["loss"]

    gradient = jax.device_get(jax.jit(jax.grad(loss))(params))
    assert not gradient["encoder"]["embeddings"]["word"][1013:].any()
    assert not gradient["mlm_head"]["bias"][1013:].any()


@pytest.mark.slow
def test_masked_logits_are_the_logits_at_those_positions(model):
    graph, params = model
    batch = random_batch(rows=2)
    batch = as_jax(batch._replace(segment_ids=np.ones_like(batch.segment_ids),
                                  position_ids=np.tile(np.arange(24, dtype=np.int32), (2, 1))))
    module = nn.merge_params(graph, params)
    every = np.asarray(module.mlm_logits(batch.input_ids))
    chosen = np.asarray(jax.jit(lambda *rows: module.decoded(module.masked_states(*rows), nn.Compute()))(
        batch.input_ids, batch.segment_ids, batch.position_ids, batch.mlm_positions))
    for b in range(2):
        np.testing.assert_allclose(chosen[b, :, :1013], every[b][np.asarray(batch.mlm_positions)[b]], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(64, 128), (7, 33)])
def test_dropout_rate_scale_and_independence(shape, rate):
    mask = jax.jit(lambda key: dropout_mask(key, rate, (1000, *shape)))
    keep = np.asarray(mask(jax.random.key(0)))
    stays = 1 - rate
    tolerance = 5 * (rate * stays / keep.size) ** 0.5  # five standard deviations of an independent draw
    assert abs(keep.mean() - stays) < tolerance
    dropped = np.asarray(jax.jit(lambda key: dropout(jnp.ones(keep.shape), rate, key))(jax.random.key(0)))
    assert abs(dropped.mean(dtype=np.float64) - 1) < tolerance / stays
    other = np.asarray(mask(jax.random.key(1)))
    for axis, neighbour in enumerate([np.roll(keep, 1, axis) for axis in range(3)] + [other]):
        both = np.mean(keep & neighbour)
        assert abs(both - stays**2) < 2 * tolerance, axis
    # No row and no column is drawn unlike the others: their means scatter as binomial ones do.
    rows = keep.mean(-1)
    assert 0.9 < rows.std() / (rate * stays / shape[-1]) ** 0.5 < 1.1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm_and_gelu_and_their_gradients_are_those_of_jax(dtype):
    """Both have backward passes that are written by hand."""
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(3 * rng.standard_normal((4, 7, 33)) + 1, dtype) for _ in range(2))
    layer = LayerNorm(33)
    layer.scale[...], layer.bias[...] = (jnp.asarray(rng.standard_normal(33), jnp.float32) for _ in range(2))

    def reference_norm(x, scale, bias):
        wide = x.astype(jnp.float32)
        normed = jax.nn.standardize(wide, epsilon=1e-5)
        return (normed * scale[None, None] + bias[None, None]).astype(dtype)

    def ours(x, scale, bias):
        copy = LayerNorm(33)
        copy.scale[...], copy.bias[...] = scale, bias
        return layer_norm(x, copy, 1e-5)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(function, *given):
        y, back = jax.vjp(function, *given)
        return y, *back(dy)

    tolerance = {"rtol": 1e-5, "atol": 2e-5} if dtype == jnp.float32 else {"rtol": 2e-2, "atol": 2e-2}
    arguments = (x, layer.scale[...], layer.bias[...])
    for function, reference, given in ((ours, reference_norm, arguments), (gelu, lambda x: jax.nn.gelu(x, approximate=False), (x,))):
        for found, expected in zip(with_gradients(function, *given), with_gradients(reference, *given), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(expected, np.float32), **tolerance)


@pytest.mark.slow
def test_no_two_layers_and_no_two_steps_share_a_dropout_mask():
    config = tiny_config(dropout=0.5, attention_dropout=0.5)
    graph, _ = nn.abstract_model(config)
    params = nn.random_params(config, 0)
    # Blocks that do nothing but drop: with equal masks in each layer, three layers would drop what one drops.
    batch = as_jax(random_batch(rows=2))
    run = jax.jit(lambda key: nn.merge_params(graph, params).encoder(*batch[:3], key=key))
    one, same, other = (np.asarray(run(jax.random.key(seed))) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    jaxpr = str(jax.make_jaxpr(lambda key: nn.merge_params(graph, params).encoder(*batch[:3], key=key))(jax.random.key(0)))
    assert "scan" in jaxpr and "u32[3,2]" not in jaxpr.split("scan")[0].split("random_split")[0]


@pytest.mark.slow
def test_roberta_counts_positions_from_its_offset():
    config = tiny_config(model_type="roberta", position_offset=2, pad_id=1, token_types=1)
    graph, _ = nn.abstract_model(config)
    params = nn.random_params(config, 0)
    assert params["encoder"]["embeddings"]["position"].shape == (66, 120)

    def first(table):
        changed = {**params, "encoder": {**params["encoder"], "embeddings": {**params["encoder"]["embeddings"], "position": table}}}
        ids = jnp.full((1, 4), 7, jnp.int32)
        return nn.merge_params(graph, changed).hidden_states(ids)[0, 0, 0]

    used = np.abs(np.asarray(jax.jit(jax.grad(first))(params["encoder"]["embeddings"]["position"]))).sum(-1) > 0
    assert list(np.flatnonzero(used)) == [2, 3, 4, 5]


def test_base_shapes_without_allocating():
    _, abstract = nn.abstract_model(nn.EncoderConfig("roberta", 50265, 768, 12, 12, 3072, 512, position_offset=2, token_types=1))
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract))
    assert count - (50304 - 50265) * 769 == 124_697_433  # RobertaForMaskedLM of roberta-base


@pytest.mark.slow
def test_empty_rows_stay_finite(model):
    graph, params = model
    batch = random_batch(rows=4)
    empty = Batch(*(np.zeros_like(a) for a in batch))
    sums = jax.jit(lambda params, batch: MaskedLanguageModelling().sums(
        nn.merge_params(graph, params), batch, key=None, compute=nn.Compute()))(params, empty)
    assert {name: float(value) for name, value in sums.items()} == {"loss": 0.0, "correct": 0.0, "weight": 0.0, "tokens": 0.0}
