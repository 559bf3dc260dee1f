"""The same numbers as transformers' PyTorch models: logits, loss gradients of every parameter."""

import dataclasses
import functools

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import torch

from jaxplm import hf, nn
from jaxplm.hf.names import decoder_aliases, leaf_of, tensor_specs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=checkpoints.FAMILIES)
def pair(request, tmp_path_factory):
    """(stock model, ours as loaded from its files)."""
    theirs = checkpoints.model(request.param, checkpoints.SIZES)
    directory = checkpoints.save(tmp_path_factory.mktemp("parity") / request.param, request.param, theirs)
    return theirs, hf.load(str(directory))


def padded_batch(config: nn.EncoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids, attention_mask), [3, L] int32 each; the last row as long as the model can take."""
    length = config.max_positions
    mask = (np.arange(length) < np.array([17, 9, length])[:, None]).astype(np.int32)
    ids = np.random.default_rng(0).integers(5, config.vocab_size, mask.shape)
    return np.where(mask == 1, ids, config.pad_id).astype(np.int32), mask


@functools.cache
def _compiled(config: nn.EncoderConfig):
    graph = nn.abstract_model(config)[0]

    def logits(params, ids, mask):
        return nn.merge_params(graph, params).mlm_logits(ids, mask)

    def mean_loss(params, ids, mask, places, positions, labels, weights):
        model = nn.merge_params(graph, params)
        logits = model.decoded(model.masked_states(ids, mask, places, positions), nn.Compute())
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1)[..., 0]
        return -(picked * weights).sum() / weights.sum()

    return jax.jit(logits), jax.jit(jax.value_and_grad(mean_loss))


def compiled(config: nn.EncoderConfig):
    """(logits, loss and gradient) as functions of the parameters; compiled once for RoBERTa's family."""
    return _compiled(dataclasses.replace(config, model_type=""))


def test_logits(pair):
    theirs, ours = pair
    positions = ours.config.max_positions + ours.config.position_offset
    assert positions == checkpoints.SIZES["max_position_embeddings"]
    ids, mask = padded_batch(ours.config)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids).long(), attention_mask=torch.tensor(mask)).logits.numpy()
    found = compiled(ours.config)[0](ours.params, ids, mask)
    real = mask.astype(bool)
    assert np.abs(expected[real]).mean() > 0.5  # the random model has something to say
    np.testing.assert_allclose(np.asarray(found)[real], expected[real], rtol=0, atol=1e-4)


def test_gradients(pair):
    """The mean MLM loss at some positions, computed as in training: gather, then project."""
    theirs, ours = pair
    ids, mask = padded_batch(ours.config)
    positions = np.array([[1, 5, 16, 0], [2, 8, 0, 0], [3, 4, 20, 22]], np.int32)
    weights = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
    labels = np.random.default_rng(2).integers(0, 1013, positions.shape).astype(np.int32)

    theirs.zero_grad()
    all_labels = np.full(ids.shape, -100)
    for row, column in zip(*np.nonzero(weights), strict=True):
        all_labels[row, positions[row, column]] = labels[row, column]
    output = theirs(torch.tensor(ids).long(), attention_mask=torch.tensor(mask),
                    labels=torch.tensor(all_labels))
    output.loss.backward()

    places = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    loss, gradient = compiled(ours.config)[1](ours.params, ids, mask, places, positions, labels, weights)
    np.testing.assert_allclose(float(loss), output.loss.item(), rtol=1e-5)

    gradient = jax.tree.map(np.asarray, gradient)
    tied = decoder_aliases(ours.config.model_type)  # one parameter; PyTorch names it by whichever comes first
    expected = {tied.get(name, str(name)): p.grad.numpy() for name, p in theirs.named_parameters()}
    found = {spec.name: spec.from_leaf(leaf_of(gradient, spec.path)) for spec in tensor_specs(ours.config, gradient)}
    assert found.keys() == expected.keys()
    # A bias of the keys shifts all scores of a query alike, so its true gradient is 0 and what remains is
    # rounding. Hence: relative to the tensor's own norm, but to no less than a millionth of the largest.
    floor = 1e-6 * max(np.linalg.norm(tensor) for tensor in expected.values())
    errors = {name: np.linalg.norm(found[name] - tensor) / max(np.linalg.norm(tensor), floor)
              for name, tensor in expected.items() if "key.bias" not in name}
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])
    for name, tensor in expected.items():
        if "key.bias" in name:
            assert max(np.linalg.norm(tensor), np.linalg.norm(found[name])) < 10 * floor, name

    # The rows that pad the vocabulary take no part.
    pads = slice(ours.config.vocab_size, None)
    assert not np.any(gradient["encoder"]["embeddings"]["word"][pads])
    assert not np.any(gradient["mlm_head"]["bias"][pads])
