"""The losses of downstream tasks are PyTorch's, values and gradients, on packed rows, as sums that add up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.config import Task
from jaxplm.data.batch import TaskBatch
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.tasks.kinds import KINDS
from jaxplm.tasks.kinds.classify_loss import CrossEntropy
from jaxplm.tasks.kinds.multilabel_loss import BinaryCrossEntropy
from jaxplm.tasks.kinds.qa_loss import AnswerSpan
from jaxplm.tasks.kinds.regress_loss import SquaredError
from jaxplm.tasks.labelled import LabelledTask

B, S, L, C = 6, 5, 23, 4
CLASS_WEIGHTS = np.array([0.3, 1.7, 1.0, 2.5], np.float32)
COUNTS = (3, 5, 1, 0, 4, 2)  # units in each row


def make_batch(kind: str, seed: int = 0) -> TaskBatch:
    """Packed rows of 0 to S units, one in four of them without a label. Unused segments hold zeros, as the data layer leaves them."""
    random = np.random.default_rng(seed)
    used = np.arange(S)[None] < np.array(COUNTS)[:, None]
    lengths = random.integers(2, L // S + 1, (B, S)) * used
    ends = np.cumsum(lengths, 1)
    first = np.where(used, ends - lengths, 0).astype(np.int32)
    place = np.arange(L)[None]
    segments = np.zeros((B, L), np.int32)
    for s in range(S):
        segments[used[:, s : s + 1] & (place >= first[:, s : s + 1]) & (place < ends[:, s : s + 1])] = s + 1
    if kind == "tag":
        weights = (segments > 0) & (random.random((B, L)) < 0.5)
        labels: Any = np.where(weights, random.integers(0, C, (B, L)), 0).astype(np.int32)
    else:
        weights = used & (random.random((B, S)) < 0.75)
        labels = {
            "classify": random.integers(0, C, (B, S)).astype(np.int32),
            "multilabel": random.integers(0, 2, (B, S, C)).astype(np.float32),
            "regress": random.normal(size=(B, S)).astype(np.float32),
            "qa": first[..., None] + np.sort(random.integers(0, np.maximum(lengths, 1)[..., None], (B, S, 2)), -1).astype(np.int32),
        }[kind]
        labels = np.where(used.reshape(B, S, *(1,) * (labels.ndim - 2)), labels, 0).astype(labels.dtype)
    zeros = np.zeros((B, L), np.int32)
    return TaskBatch(zeros, segments, zeros, zeros, first, labels, weights.astype(np.float32))


def random_logits(kind: str, seed: int = 1) -> np.ndarray:
    shape = (B, L, C if kind == "tag" else 2) if kind in ("tag", "qa") else (B, S, 1 if kind == "regress" else C)
    return 3 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ours(task: LabelledTask, logits: np.ndarray, batch: TaskBatch) -> tuple[float, np.ndarray]:
    """The mean loss, as the step has it, and its gradient to the logits."""
    def mean(values: jax.Array) -> jax.Array:
        sums = task.sums_of(values, jax.tree.map(jnp.asarray, batch))
        return sums["loss"] / sums["weight"]

    loss, gradient = jax.jit(jax.value_and_grad(mean))(jnp.asarray(logits))
    return float(loss), np.asarray(gradient)


def assert_same(task: LabelledTask, kind: str, theirs) -> None:
    """`theirs(logits, batch)`: the mean loss in PyTorch."""
    batch, logits = make_batch(kind), random_logits(kind)
    values = torch.tensor(logits, requires_grad=True)
    expected = theirs(values, batch)
    expected.backward()
    assert values.grad is not None
    loss, gradient = ours(task, logits, batch)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, values.grad.numpy(), rtol=0, atol=1e-6)
    assert np.abs(gradient).max() > 1e-2


def labelled_as(batch: TaskBatch) -> Any:
    """Labels as PyTorch's cross_entropy takes them, -100 where nothing counts."""
    return torch.tensor(np.where(batch.weights > 0, batch.labels, -100)).long().flatten()


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_cross_entropy(kind, smoothing, weights):
    given_weights = None if weights is None else torch.tensor(weights)
    assert_same(CrossEntropy(smoothing, weights), kind, lambda logits, batch: torch.nn.functional.cross_entropy(
        logits.reshape(-1, C), labelled_as(batch), weight=given_weights, label_smoothing=smoothing))


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS], ids=["plain", "weighted"])
def test_binary_cross_entropy(weights):
    def theirs(logits, batch):
        known = torch.tensor(batch.weights) > 0
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits[known], torch.tensor(batch.labels)[known], pos_weight=None if weights is None else torch.tensor(weights))

    assert_same(BinaryCrossEntropy(weights), "multilabel", theirs)


@pytest.mark.slow
def test_squared_error():
    def theirs(logits, batch):
        known = torch.tensor(batch.weights) > 0
        return torch.nn.functional.mse_loss(logits[known][:, 0], torch.tensor(batch.labels)[known])

    assert_same(SquaredError(), "regress", theirs)


@pytest.mark.slow
def test_answers_on_packed_rows():
    """BertForQuestionAnswering on each unit alone: the average of the cross-entropies of both ends over the unit's own tokens."""
    def theirs(logits, batch):
        losses = []
        for row, slot in zip(*np.nonzero(batch.weights), strict=True):
            inside = np.flatnonzero(batch.segment_ids[row] == slot + 1)
            begin = int(inside[0])
            for end in range(2):
                alone = logits[row, torch.tensor(inside), end][None]
                losses.append(torch.nn.functional.cross_entropy(alone, torch.tensor([int(batch.labels[row, slot, end]) - begin])) / 2)
        return torch.stack(losses).sum() / batch.weights.sum()

    assert_same(AnswerSpan(), "qa", theirs)


@pytest.mark.slow
def test_other_units_and_padding_have_no_part_in_an_answer():
    batch, logits = make_batch("qa"), random_logits("qa")
    outside = ~np.isin(batch.segment_ids, [1]) | (batch.weights[:, :1] == 0)
    batch = batch._replace(weights=batch.weights * np.array([1, 0, 0, 0, 0], np.float32))
    loss, gradient = ours(AnswerSpan(), logits, batch)
    assert not gradient[outside].any()
    moved = np.where(outside[..., None], logits + 50, logits).astype(np.float32)
    np.testing.assert_allclose(ours(AnswerSpan(), moved, batch)[0], loss, rtol=1e-6)


EXTREME = [("classify", CrossEntropy(0.1, CLASS_WEIGHTS)), ("multilabel", BinaryCrossEntropy(CLASS_WEIGHTS)), ("regress", SquaredError()),
           ("tag", CrossEntropy()), ("qa", AnswerSpan())]


# {kind: the compiled function of logits and a batch → the sums, and the weights of the batch alone}
SUMS = {kind: jax.jit(lambda logits, batch, task=task: (task.sums_of(logits, batch), task.weights_of(batch))) for kind, task in EXTREME}


@pytest.mark.parametrize(("kind", "task"), EXTREME, ids=[kind for kind, _ in EXTREME])
def test_large_logits_and_unused_slots_stay_finite(kind, task):
    batch = make_batch(kind)
    known = batch.weights > 0
    sure = 1e4 * np.sign(random_logits(kind))
    if kind == "regress":
        sure = sure / 1e3
    loss, gradient = ours(task, sure.astype(np.float32), batch)
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    if kind in ("classify", "multilabel", "regress", "tag"):
        assert not gradient[~known].any(), "what has no label has no gradient"


def no_labels(batch: TaskBatch) -> TaskBatch:
    return batch._replace(weights=np.zeros_like(batch.weights))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "task"), EXTREME, ids=[kind for kind, _ in EXTREME])
def test_a_batch_without_a_label_weighs_nothing(kind, task):
    sums, weights = SUMS[kind](random_logits(kind), no_labels(make_batch(kind)))
    assert float(sums["weight"]) == float(sums["loss"]) == float(weights["loss"]) == 0
    assert np.isnan(task.metrics({"loss": 0.0, "weight": 0.0})["loss"])


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.sampled_from(EXTREME), st.permutations(range(B)), st.sampled_from([2, 3]))  # few shapes: each is compiled
def test_sums_of_parts_are_the_sums_of_the_whole(case, order, cut):
    """In any order and any division: what accumulation, packing and processes rely on."""
    kind, _ = case
    batch, logits = make_batch(kind), random_logits(kind)
    whole, _ = SUMS[kind](logits, batch)
    total = dict.fromkeys(whole, 0.0)
    for rows in (np.array(order[:cut]), np.array(order[cut:])):
        found, weights = SUMS[kind](logits[rows], jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch))
        assert float(found["weight"]) == pytest.approx(float(weights["loss"]), abs=1e-6)
        total = {name: value + float(found[name]) for name, value in total.items()}
    for name, value in whole.items():
        np.testing.assert_allclose(total[name], float(value), rtol=1e-5, err_msg=name)
    assert float(whole["tokens"]) == (batch.segment_ids > 0).sum()


def labels(counts: list[int]) -> LabelSet:
    return LabelSet(tuple(f"c{i}" for i in range(len(counts))), np.array(counts, np.int64), sum(counts))


@pytest.mark.slow
def test_the_task_of_a_config():
    found = KINDS["classify"].loss(Task(kind="classify", label_smoothing=0.1, class_weights="balanced"), labels([1, 3]))
    assert isinstance(found, CrossEntropy)
    zeros = np.zeros((1, 4), np.int32)
    batch = TaskBatch(zeros, zeros, zeros, zeros, zeros[:, :2], np.array([[0, 1]], np.int32), np.ones((1, 2), np.float32))
    np.testing.assert_allclose(found.weights(jax.tree.map(jnp.asarray, batch)), [[2, 2 / 3]], rtol=1e-6)
    logits = np.array([[[0.3, -1.0], [0.1, 0.4]]], np.float32)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits[0]), torch.tensor([0, 1]), weight=torch.tensor([2, 2 / 3]),
                                                 label_smoothing=0.1)
    np.testing.assert_allclose(ours(found, logits, batch)[0], expected.item(), rtol=1e-6)
    for kind, expected_class in (("tag", CrossEntropy), ("multilabel", BinaryCrossEntropy), ("regress", SquaredError), ("qa", AnswerSpan)):
        assert type(KINDS[kind].loss(Task(kind=kind), labels([2, 3]))) is expected_class
    with refuses("task.class_weights=balanced"):
        KINDS["classify"].loss(Task(kind="classify", class_weights="balanced"), labels([0, 0]))
