"""Heads of tasks: the same logits, losses and gradients of every parameter as transformers' PyTorch models."""

import dataclasses
import functools

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoints import torch

from jaxplm import hf, nn
from jaxplm.hf.names import leaf_of, tensor_specs
from jaxplm.tasks.kinds import KINDS

pytestmark = pytest.mark.slow

# family: heads. The last two differ from RoBERTa in names alone, so one head each will do.
CASES = [(family, kind) for family in ("bert", "roberta") for kind in ("classify", "multilabel", "regress", "tag", "qa")] + [
    ("klue", "tag"), ("xlm-roberta", "classify"), ("camembert", "qa")]
STOCK = {
    "classify": ("ForSequenceClassification", {"num_labels": 4}),
    "multilabel": ("ForSequenceClassification", {"num_labels": 4, "problem_type": "multi_label_classification"}),
    "regress": ("ForSequenceClassification", {"num_labels": 1}),
    "tag": ("ForTokenClassification", {"num_labels": 7}),
    "qa": ("ForQuestionAnswering", {}),
}


def padded_pairs(config: nn.EncoderConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(input_ids, attention_mask, token_type_ids), [3, L] int32 each; the last row as long as the model can take.
    Where the model knows token types, the second half of each row is the second text of a pair."""
    length, sizes = config.max_positions, np.array([17, 9, config.max_positions])
    mask = np.arange(length)[None] < sizes[:, None]
    ids = np.where(mask, np.random.default_rng(0).integers(5, config.vocab_size, mask.shape), config.pad_id)
    second = mask & (np.arange(length)[None] >= sizes[:, None] // 2) & (config.token_types > 1)
    return ids.astype(np.int32), mask.astype(np.int32), second.astype(np.int32)


def labels_of(kind: str, mask: np.ndarray) -> np.ndarray:
    """Labels as transformers takes them; for qa [B, 2], first and last token."""
    random = np.random.default_rng(1)
    if kind == "classify":
        return np.array([3, 0, 2])
    if kind == "multilabel":
        return random.integers(0, 2, (3, 4)).astype(np.float32)
    if kind == "regress":
        return np.array([0.3, -1.2, 2.0], np.float32)
    if kind == "tag":  # half of the tokens have no label, as later pieces of words have none
        return np.where(mask.astype(bool) & (random.random(mask.shape) < 0.5), random.integers(0, 7, mask.shape), -100)
    return np.array([[3, 5], [1, 1], [20, 40]])


def loss_of(kind: str, logits: jax.Array, labels: np.ndarray, mask: np.ndarray) -> jax.Array:
    """The loss that transformers computes, from our logits."""
    if kind == "classify":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    if kind == "multilabel":
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()
    if kind == "regress":
        return jnp.square(logits[:, 0] - labels).mean()
    if kind == "tag":
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return jnp.where(labels >= 0, losses, 0.0).sum() / (labels >= 0).sum(dtype=jnp.float32)
    real = jnp.where(mask[..., None] == 1, logits, -1e9)
    return optax.softmax_cross_entropy_with_integer_labels(real.swapaxes(1, 2), labels).mean()


def their_loss(kind: str, output, labels: np.ndarray, mask: np.ndarray):
    """transformers' own loss; for qa without the logits at padding, which differ and are not used."""
    if kind != "qa":
        return output.loss
    pads = torch.tensor(mask) == 0
    ends = (output.start_logits, output.end_logits)
    return sum(torch.nn.functional.cross_entropy(logits.masked_fill(pads, -1e9), torch.tensor(labels[:, i]))
               for i, logits in enumerate(ends)) / 2


@functools.cache
def _compiled(config: nn.EncoderConfig, head: nn.HeadConfig):
    graph = nn.abstract_task_model(config, head)[0]

    def logits(params, ids, mask, types):
        return nn.merge_params(graph, params).logits(ids, mask, types)

    def both(params, ids, mask, types, cotangent):
        found, back = jax.vjp(lambda params: logits(params, ids, mask, types), params)
        return found, back(cotangent)[0]

    return jax.jit(both)


def compiled(config: nn.EncoderConfig, head: nn.HeadConfig):
    """(params, ids, mask, types, cotangent of the logits) → (logits, gradient); compiled once for what has one form."""
    return _compiled(dataclasses.replace(config, model_type=config.model_type if config.model_type == "bert" else ""),
                     dataclasses.replace(head, kind="multilabel") if head.pooled else head)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_logits_loss_and_gradients(family, kind, tmp_path):
    end, options = STOCK[kind]
    theirs = checkpoints.model(family, checkpoints.SIZES, end, **options)
    ours = hf.load_task_model(str(checkpoints.save(tmp_path / family, family, theirs)), KINDS)
    assert ours.notes == []
    assert ours.head == KINDS[kind].head_config(options.get("num_labels", 2))
    ids, mask, types = padded_pairs(ours.config)
    assert types.any() == (family == "bert")
    labels = labels_of(kind, mask)

    given = {} if kind == "qa" else {"labels": torch.tensor(labels)}
    output = theirs(torch.tensor(ids).long(), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types).long(), **given)
    expected_loss = their_loss(kind, output, labels, mask)
    expected_loss.backward()
    expected = torch.stack([output.start_logits, output.end_logits], -1) if kind == "qa" else output.logits
    expected = expected.detach().numpy()

    run = compiled(ours.config, ours.head)
    logits, _ = run(ours.params, ids, mask, types, np.zeros(expected.shape, np.float32))
    loss, to_logits = jax.value_and_grad(lambda logits: loss_of(kind, logits, labels, mask))(logits)
    _, gradient = run(ours.params, ids, mask, types, to_logits)
    assert logits.shape == expected.shape and logits.dtype == jnp.float32
    real = mask.astype(bool) if kind in ("tag", "qa") else np.ones(3, bool)
    assert np.abs(expected[real]).mean() > 0.05  # the random model has something to say
    np.testing.assert_allclose(np.asarray(logits)[real], expected[real], rtol=0, atol=1e-4)
    np.testing.assert_allclose(float(loss), expected_loss.item(), rtol=1e-5)

    gradient = jax.tree.map(np.asarray, gradient)
    wanted = {str(name): p.grad.numpy() for name, p in theirs.named_parameters()}
    found = {spec.name: spec.from_leaf(leaf_of(gradient, spec.path))
             for spec in tensor_specs(ours.config, gradient, ours.kind.hf_class)}
    assert found.keys() == wanted.keys()
    # As in test_parity: a bias of the keys has no true gradient, only rounding. Nor has what adds the same to the logits of
    # all places in qa, whose softmax runs over the places.
    unmoved = ["key.bias"] + (["qa_outputs.bias", f"layer.{ours.config.layers - 1}.output.LayerNorm.bias"] if kind == "qa" else [])
    idle = {name for name in wanted if any(part in name for part in unmoved)} - {
        name for name in wanted if "attention.output" in name}
    assert len(idle) == ours.config.layers + 2 * (kind == "qa")
    floor = 1e-6 * max(np.linalg.norm(tensor) for tensor in wanted.values())
    errors = {name: np.linalg.norm(found[name] - tensor) / max(np.linalg.norm(tensor), floor)
              for name, tensor in wanted.items() if name not in idle}
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])
    for name in idle:
        assert max(np.linalg.norm(wanted[name]), np.linalg.norm(found[name])) < 10 * floor, name
