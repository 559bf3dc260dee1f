"""Heads of tasks: what is pooled, mixed and recurred, and that packing changes nothing."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from jaxplm import nn
from jaxplm.config import Mesh
from jaxplm.devices import sharding
from jaxplm.nn import paths
from jaxplm.tasks.kinds import KINDS

LENGTHS, LENGTH, SLOTS = (5, 9, 7), 24, 3
CONFIG = tiny_config(width=30, layers=5, heads=3, ffn_width=44, vocab_size=101)
SHALLOW = dataclasses.replace(CONFIG, layers=1)
POOLED = [KINDS["classify"].head_config(3, pooling=pooling, layers=layers) for pooling in ("cls", "mean", "max")
          for layers in ("last", "last4", "mix")]
TAGGERS = [KINDS["tag"].head_config(4, layers=layers, body=body, body_width=7) for body in ("", "lstm", "transformer")
           for layers in ("last", "last4", "mix")]
OTHERS = [KINDS["multilabel"].head_config(2), KINDS["regress"].head_config(1, layers="mix"), KINDS["qa"].head_config(2),
          KINDS["qa"].head_config(2, layers="last4")]


def label(head: nn.HeadConfig) -> str:
    return "-".join(filter(None, (head.kind, head.pooling, head.layers, head.body)))


def packed_and_alone():
    """Three texts of 5, 9 and 7 tokens in the first of three rows, and one per row: both as (ids, segments, positions,
    types, first)."""
    random = np.random.default_rng(3)
    packed, alone = np.zeros((2, 4, 3, LENGTH), np.int32)
    first = np.zeros((2, 3, SLOTS), np.int32)
    at = 0
    for i, n in enumerate(LENGTHS):
        text = np.stack([random.integers(5, 101, n), np.full(n, i + 1), np.arange(n), np.arange(n) >= n // 2])
        packed[:, 0, at : at + n], alone[:, i, :n] = text, text
        alone[1, i, :n] = 1
        first[0, 0, i] = at
        at += n
    return (*packed, first[0]), (*alone, first[1])


@functools.cache
def params_of(config: nn.EncoderConfig, head: nn.HeadConfig):
    """Large random numbers everywhere: biases, gates and the weights of layers too."""
    random = np.random.default_rng(0)
    return paths.by_path(lambda name, leaf: jnp.asarray(np.asarray(
        (0.2 if name.startswith("encoder") else 0.4) * random.standard_normal(leaf.shape) + (1.0 if name.endswith("scale") else 0.0),
        np.float32)), nn.abstract_task_model(config, head)[1])


def places(packed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 21 tokens, text after text."""
    rows = np.zeros(21, int) if packed else np.repeat(np.arange(3), LENGTHS)
    return rows, np.arange(21) if packed else np.concatenate([np.arange(n) for n in LENGTHS])


def of_units(head: nn.HeadConfig, logits, packed: bool) -> np.ndarray:
    """The logits that mean something, unit after unit: [units or tokens, C]."""
    if head.pooled:
        return np.asarray(logits)[0 if packed else slice(None), slice(None) if packed else 0]
    return np.asarray(logits)[places(packed)]


def fixed_weights(head: nn.HeadConfig, packed: bool) -> np.ndarray:
    """What the loss weighs each logit by: the same numbers for the same unit or token, 0 for what is none."""
    given = np.cos(np.arange((3 if head.pooled else 21) * head.classes, dtype=np.float32)).reshape(-1, head.classes)
    weights = np.zeros((3, SLOTS if head.pooled else LENGTH, head.classes), np.float32)
    weights[((0, np.arange(3)) if packed else (np.arange(3), 0)) if head.pooled else places(packed)] = given
    return weights


@dataclasses.dataclass
class Given:
    """In place of an encoder: hidden states [N + 1, B, L, D] that are there already, in `compute`'s type."""

    hidden: jax.Array

    def __call__(self, *_, compute: nn.Compute, **__) -> jax.Array:
        return self.hidden[-1].astype(compute.activations)

    def every_layer(self, *_, compute: nn.Compute, **__) -> jax.Array:
        return self.hidden.astype(compute.activations)


def logits_of_hidden(head: nn.HeadConfig, params, hidden, segments, first, compute=nn.Compute(), config=CONFIG):
    """Everything above the encoder, compiled in a fraction of the whole's time."""
    stand_in = SimpleNamespace(encoder=Given(hidden), config=config, head_config=head)
    features = nn.TaskModel.features(stand_in, segments, segments, segments, segments, first, compute=compute)  # type: ignore[arg-type]
    return nn.merge_params(nn.abstract_head_model(config, head)[0], {"head": params}).logits_from(features, segments, compute=compute)


def check_gradients(found, expected):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()), err_msg=paths.path_name(path))
    unmoved = {name for name, leaf in paths.named(found).items() if not np.abs(leaf).max() > 1e-7}
    assert not unmoved, "these take no part in the loss"


@pytest.mark.slow
@pytest.mark.parametrize("head", [*POOLED, *TAGGERS, *OTHERS], ids=label)
def test_packed_logits_and_gradients_equal_unpacked(head):
    def loss(params, hidden, segments, first, weights):
        logits = logits_of_hidden(head, params, hidden, segments, first)
        return (jnp.sin(logits) * weights).sum(), logits

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    batches = packed_and_alone()
    tokens = np.random.default_rng(6).standard_normal((CONFIG.layers + 1, 21, CONFIG.width)).astype(np.float32)
    found = []
    for packed in (True, False):
        _, segments, _, _, first = batches[0 if packed else 1]
        hidden = np.random.default_rng(7 + packed).standard_normal((6, 3, LENGTH, CONFIG.width)).astype(np.float32)  # padding: anything
        hidden[:, *places(packed)] = tokens
        (_, logits), (gradient, to_hidden) = run(params_of(CONFIG, head)["head"], hidden, segments, first, fixed_weights(head, packed))
        found.append((of_units(head, logits, packed), gradient, np.asarray(to_hidden)[:, *places(packed)]))
        outside = np.ones((3, LENGTH), bool)
        outside[places(packed)] = False
        assert not np.asarray(to_hidden)[:, outside].any(), "nothing that counts depends on padding"
    assert found[0][0].shape == ((3, head.classes) if head.pooled else (21, head.classes))
    assert np.std(found[0][0], 0).min() > 0.05  # the units differ
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    np.testing.assert_allclose(found[0][2], found[1][2], atol=1e-5)
    check_gradients(found[0][1], found[1][1])


@pytest.mark.slow
@pytest.mark.parametrize("head", [POOLED[8], TAGGERS[5]], ids=label)
def test_the_same_through_the_encoder(head):
    graph, _ = nn.abstract_task_model(CONFIG, head)

    def loss(params, weights, *batch):
        logits = nn.merge_params(graph, params)(*batch)
        return (jnp.sin(logits) * weights).sum(), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    packed, alone = packed_and_alone()
    params = params_of(CONFIG, head)
    (_, one), packed_grad = run(params, fixed_weights(head, True), *packed)
    (_, many), alone_grad = run(params, fixed_weights(head, False), *alone)
    np.testing.assert_allclose(of_units(head, one, True), of_units(head, many, False), atol=1e-5)
    check_gradients(packed_grad, alone_grad)


@pytest.mark.slow
@pytest.mark.parametrize("head", [POOLED[5], TAGGERS[5]], ids=label)
def test_features_and_head_alone_give_the_logits_of_the_whole(head):
    params, packed = params_of(SHALLOW, head), packed_and_alone()[0]
    graph, outline = nn.abstract_head_model(SHALLOW, head)
    assert jax.tree.structure(outline) == jax.tree.structure({"head": params["head"]})

    @jax.jit
    def both(params, *batch):
        model = nn.merge_params(nn.abstract_task_model(SHALLOW, head)[0], params)
        features = model.features(*batch)
        return features, nn.merge_params(graph, {"head": params["head"]}).logits_from(features, batch[1]), model(*batch)

    features, alone, whole = both(params, *packed)
    assert features.shape == (3, SLOTS if head.pooled else LENGTH, SHALLOW.layers + 1, SHALLOW.width)
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(alone, whole, atol=1e-6)


@pytest.mark.slow
def test_layers_and_poolings_are_what_they_are_called():
    _, segments, _, _, first = packed_and_alone()[0]
    hidden = np.random.default_rng(5).standard_normal((6, 3, LENGTH, CONFIG.width)).astype(np.float32)  # embeddings and 5 blocks

    def features(head, hidden=hidden):
        def compiled(hidden):
            stand_in = SimpleNamespace(encoder=Given(hidden), config=CONFIG, head_config=head)
            return nn.TaskModel.features(stand_in, segments, segments, segments, segments, first)  # type: ignore[arg-type]

        return np.asarray(jax.jit(compiled)(hidden))

    edges = np.cumsum((0, *LENGTHS))
    reduce = {"cls": lambda x: x[:, 0], "mean": lambda x: x.mean(1), "max": lambda x: x.max(1)}
    for head in POOLED:
        units = np.stack([reduce[head.pooling](hidden[:, 0, a:b]) for a, b in zip(edges, edges[1:], strict=False)])  # [S, 6, D]
        expected = {"last": units[:, -1:], "last4": units[:, -4:].mean(1, keepdims=True), "mix": units}[head.layers]
        np.testing.assert_allclose(features(head)[0], expected, atol=1e-6, err_msg=label(head))
        assert not features(head)[1:].any(), "unused slots are zero"
    np.testing.assert_allclose(features(TAGGERS[1])[:, :, 0], hidden[-4:].mean(0), atol=1e-6)
    np.testing.assert_array_equal(features(TAGGERS[2]), np.moveaxis(hidden, 0, 2))
    np.testing.assert_allclose(features(TAGGERS[1], hidden[:3])[:, :, 0], hidden[1:3].mean(0), atol=1e-6)  # of two blocks both


def test_one_layer_is_all_that_is_computed_where_one_is_all_that_is_needed(monkeypatch):
    monkeypatch.setattr("jaxplm.nn.encoder.Encoder.every_layer", None)
    packed, _ = packed_and_alone()

    def shape(head):
        graph, outline = nn.abstract_task_model(CONFIG, head)
        return jax.eval_shape(lambda params: nn.merge_params(graph, params)(*packed), outline).shape

    assert shape(TAGGERS[0]) == (3, LENGTH, 4)
    with pytest.raises(TypeError):
        shape(TAGGERS[1])


@pytest.mark.slow
def test_a_new_head():
    config = tiny_config(init_std=0.03)
    head = KINDS["tag"].head_config(5, layers="mix", body="lstm", body_width=50)
    params = jax.tree.map(np.asarray, nn.random_head_params(config, head, 1))
    body = params["body"]
    assert {name: leaf.shape for name, leaf in paths.named(params).items()} == {
        "mix/weights": (4,), "mix/gamma": (), "body/kernel": (120, 2, 4, 50), "body/recurrent": (2, 50, 4, 50),
        "body/bias": (2, 4, 50), "out/kernel": (100, 5), "out/bias": (5,)}
    for kernel in (body["kernel"], body["recurrent"]):
        assert 0.99 * 50**-0.5 < np.abs(kernel).max() <= 50**-0.5
    assert (body["bias"][:, 1] == 1).all() and body["bias"].sum() == 2 * 50
    assert params["mix"]["gamma"] == 1 and not params["mix"]["weights"].any()
    assert 0.9 < params["out"]["kernel"].std() / 0.03 < 1.1 and not params["out"]["bias"].any()
    assert (np.asarray(nn.random_head_params(config, head, 1)["out"]["kernel"]) == params["out"]["kernel"]).all()
    assert (np.asarray(nn.random_head_params(config, head, 2)["out"]["kernel"]) != params["out"]["kernel"]).any()
    dense = nn.random_head_params(config, KINDS["classify"].head_config(5), 1)
    assert {name: leaf.shape for name, leaf in paths.named(dense).items()} == {
        "dense/kernel": (120, 120), "dense/bias": (120,), "out/kernel": (120, 5), "out/bias": (5,)}


OWN_RATES = [(KINDS["classify"].head_config(3), False), (KINDS["classify"].head_config(3), True),
             *((head, False) for head in TAGGERS[::3]), (KINDS["qa"].head_config(2), False)]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "first"), OWN_RATES, ids=str)
def test_the_heads_own_dropout(head, first):
    """The head's rate is its own; with no rate given it is the encoder's; a qa head has none."""
    segments = packed_and_alone()[0][1]
    features = np.random.default_rng(0).standard_normal((3, SLOTS if head.pooled else LENGTH, 1, CONFIG.width)).astype(np.float32)

    def spread(encoder_rate, head_rate):
        config = dataclasses.replace(CONFIG, head_dropout_first=first, dropout=encoder_rate)
        graph, _ = nn.abstract_head_model(config, dataclasses.replace(head, dropout=head_rate))

        @jax.jit
        def runs(params):
            model = nn.merge_params(graph, {"head": params})
            return [model.logits_from(features, segments, key=key) for key in (None, jax.random.key(0), jax.random.key(1))]

        found = runs(params_of(CONFIG, head)["head"])
        found = list(map(np.asarray, found))
        return np.abs(found[0] - found[1]).max(), np.abs(found[1] - found[2]).max()

    assert spread(0.5, 0.0) == (0, 0)
    for rates in ((0.5, None), (0.0, 0.5)):
        assert (min(spread(*rates)) > 0.01) == (head.pooled or head.token_dropout)


@pytest.mark.slow
def test_logits_of_plain_arguments():
    packed, alone = packed_and_alone()
    ids, segments, _, types, _ = alone
    for head, tokens in ((POOLED[3], False), (TAGGERS[3], True)):
        model = nn.merge_params(nn.abstract_task_model(SHALLOW, head, ("a", "b", "c", "d")[: head.classes])[0], params_of(SHALLOW, head))
        assert model.labels == ("a", "b", "c", "d")[: head.classes]
        found = np.asarray(model.logits(input_ids=ids, attention_mask=segments.astype(np.int64), token_type_ids=types))
        assert found.shape == ((3, LENGTH, 4) if tokens else (3, 3)) and found.dtype == np.float32
        np.testing.assert_allclose(of_units(head, found if tokens else found[:, None], False),
                                   of_units(head, jax.jit(lambda *batch: model(*batch))(*packed), True), atol=1e-5)  # noqa: B023
        assert np.abs(model.logits(ids, segments) - found).max() > 0.01  # the second text of a pair has other token types
        whole = model.logits(ids[1:2, :9], None, types[1:2, :9])
        np.testing.assert_allclose(np.asarray(whole)[0], found[1, :9] if tokens else found[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compute", [nn.Compute(operands="bfloat16"), nn.Compute("bfloat16", "bfloat16")])
@pytest.mark.parametrize("head", [POOLED[5], POOLED[8], TAGGERS[3], TAGGERS[6]], ids=label)
def test_lower_precision_is_close_and_ends_in_float32(head, compute):
    _, segments, _, _, first = packed_and_alone()[0]
    hidden = np.random.default_rng(6).standard_normal((CONFIG.layers + 1, 3, LENGTH, CONFIG.width)).astype(np.float32)
    hidden = jnp.asarray(hidden.astype(jnp.bfloat16).astype(np.float32))  # what an encoder in bfloat16 gives
    params = params_of(CONFIG, head)["head"]

    def loss(params, compute):
        logits = logits_of_hidden(head, params, hidden, segments, first, compute)
        return jnp.sin(logits).sum(), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    (_, exact), exact_grad = run(params, nn.Compute())
    (_, found), grad = run(params, compute)
    assert found.dtype == jnp.float32 and {leaf.dtype for leaf in jax.tree.leaves(grad)} == {jnp.dtype("float32")}
    found, exact = np.asarray(found), np.asarray(exact)
    assert (found != exact).any() == bool(head.body)  # pooling and the layers at the end are float32 in any case
    np.testing.assert_allclose(of_units(head, found, True), of_units(head, exact, True), atol=0.03 * np.abs(exact).max())
    for a, b in zip(jax.tree.leaves(jax.device_get(grad)), jax.tree.leaves(jax.device_get(exact_grad)), strict=True):
        assert np.linalg.norm(a - b) <= 0.1 * np.linalg.norm(b) + 1e-3


@pytest.mark.parametrize(("kind", "outputs", "settings"), [
    ("classify", 1, {}), ("regress", 2, {}), ("qa", 3, {}), ("tag", 0, {}), ("tag", 3, {"pooling": "mean"}),
    ("classify", 2, {"pooling": "sum"}), ("classify", 2, {"layers": "first"}), ("classify", 2, {"body": "lstm"}),
    ("qa", 2, {"body": "lstm"}), ("tag", 2, {"body": "gru"})])
def test_heads_that_do_not_exist(kind, outputs, settings):
    with pytest.raises(ValueError, match=r"outputs|none of|no meaning|body"):
        KINDS[kind].head_config(outputs, **settings)


def test_a_body_reads_the_vectors_of_tokens():
    with pytest.raises(ValueError, match="body"):
        nn.HeadConfig("mine", 2, body="lstm")
    assert nn.HeadConfig("mine", 2, body="lstm", per_token=True).body == "lstm"


def test_heads_of_transformers():
    assert [head for head in (*POOLED, *TAGGERS, *OTHERS) if head.hf_native] == [POOLED[0], TAGGERS[0], OTHERS[0], OTHERS[2]]
    assert KINDS["classify"].head_config(2, body_width=3, dropout=0.3).hf_native


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_every_parameter_has_its_place_on_a_mesh(sizes):
    config = tiny_config(width=96, heads=4, ffn_width=64)
    mesh = sharding.make_mesh(Mesh(*sizes))
    for head in (KINDS["classify"].head_config(5, pooling="max", layers="mix"),
                 *(KINDS["tag"].head_config(5, layers="mix", body=body, body_width=20) for body in ("", "lstm", "transformer"))):
        _, outline = nn.abstract_task_model(config, head)
        placed = paths.named(sharding.param_shardings(outline, mesh))
        for name in paths.named(outline):
            axes = [axis for axis in placed[name].spec if axis]
            assert ("fsdp" in axes) == name.endswith(("kernel", "word", "position", "token_type")), name
            assert "data" not in axes, name
        _, alone = nn.abstract_head_model(config, head)
        assert paths.named(sharding.param_shardings(alone, mesh)) == {
            name: where for name, where in placed.items() if name.startswith("head/")}


@pytest.mark.slow
@pytest.mark.parametrize("head", [KINDS["classify"].head_config(3, pooling=pooling, layers="mix") for pooling in ("cls", "mean", "max")] + [
    KINDS["tag"].head_config(3, body=body, body_width=20) for body in ("lstm", "transformer")], ids=label)
def test_eight_devices_equal_one(head):
    config = tiny_config(width=96, heads=4, layers=5)
    _, outline = nn.abstract_head_model(config, head)
    params = jax.tree.map(lambda leaf: np.float32(0.4) * np.asarray(leaf), params_of(config, head)["head"])
    _, segments, _, _, first = packed_and_alone()[0]
    segments, first = (np.concatenate([part, part[:1]]) for part in (segments, first))  # 4 rows for data 2 × fsdp 2
    hidden = np.random.default_rng(6).standard_normal((4, 6, LENGTH, 96)).astype(np.float32)
    mesh = sharding.make_mesh(Mesh(2, 2, 2))
    placed, rows = sharding.param_shardings(outline, mesh)["head"], sharding.batch_sharding(mesh)

    def loss(params, hidden, segments, first):
        return jnp.sin(logits_of_hidden(head, params, hidden.swapaxes(0, 1), segments, first, config=config)).sum()

    run = jax.value_and_grad(loss, argnums=(0, 1))
    one = jax.jit(run)(params, hidden, segments, first)
    eight = jax.jit(run, in_shardings=(placed, rows, rows, rows),
                    out_shardings=(sharding.replicated(mesh), (placed, rows)))(params, hidden, segments, first)
    np.testing.assert_allclose(one[0], eight[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(eight[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(a).max()))
