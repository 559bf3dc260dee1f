"""Sentence pairs in the model: the numbers of BertForPreTraining, on any mesh and with any accumulation; loading and saving."""

import dataclasses

import checkpoints
import jax
import numpy as np
import pytest
import transformers
from checkpoints import assert_bitwise, resave, torch
from helpers import random_batch, tiny_config, trainer
from messages import assert_says, refuses
from safetensors.numpy import load_file

from jaxplm import config, hf, nn
from jaxplm.data.batch import PairBatch
from jaxplm.devices import sharding
from jaxplm.hf.names import decoder_aliases, leaf_of, tensor_specs
from jaxplm.recipes.pretrain.new_model import new_config
from jaxplm.tasks.pairs import MaskedPairs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """(transformers' model, its directory, ours as loaded from it)."""
    theirs = checkpoints.model("bert", checkpoints.SIZES, head="ForPreTraining")
    directory = checkpoints.save(tmp_path_factory.mktemp("pairs") / "bert", "bert", theirs)
    return theirs, directory, hf.load(str(directory), pairs=True)


def pair_batch(rows: int = 8, length: int = 24, seed: int = 0) -> PairBatch:
    """Return rows of one pair each, of different lengths."""
    batch = random_batch(rows, length, seed=seed)
    random = np.random.default_rng(seed + 1)
    real = (batch.segment_ids > 0).astype(np.int32)
    place = np.arange(length)[None]
    types = ((place >= random.integers(3, length - 8, rows)[:, None]) & (real > 0)).astype(np.int32)
    return PairBatch(batch.input_ids, real, (place * real).astype(np.int32), batch.mlm_positions, batch.mlm_labels, batch.mlm_weights,
                     types, random.integers(0, 2, rows).astype(np.int32), np.ones(rows, np.float32))


def test_logits_losses_and_gradients(stock):
    theirs, _, ours = stock
    assert ours.notes == [] and ours.config.pooler and ours.config.pair_head
    batch = pair_batch()
    labels = np.full(batch.input_ids.shape, -100)
    rows, taken = np.nonzero(batch.mlm_weights)
    labels[rows, batch.mlm_positions[rows, taken]] = batch.mlm_labels[rows, taken]
    theirs.zero_grad()
    output = theirs(torch.tensor(batch.input_ids).long(), attention_mask=torch.tensor(batch.segment_ids),
                    token_type_ids=torch.tensor(batch.token_types).long(), labels=torch.tensor(labels),
                    next_sentence_label=torch.tensor(batch.pair_labels).long())
    output.loss.backward()

    graph, task = nn.abstract_model(ours.config)[0], MaskedPairs()

    @jax.jit
    def both_logits(params, batch):
        model = nn.merge_params(graph, params)
        states, pairs = model.masked_states_and_pair_logits(*batch[:3], batch.token_types, batch.mlm_positions)
        return model.decoded(states, nn.Compute()), pairs

    @jax.jit
    @jax.value_and_grad
    def loss(params, batch):
        sums = task.sums(nn.merge_params(graph, params), batch, key=None, compute=nn.Compute())
        weights = task.weights_of(batch)
        return sum(sums[name] / weights[name] for name in weights)

    masked, pairs = both_logits(ours.params, batch)
    found, gradient = loss(ours.params, batch)
    expected = output.prediction_logits.detach().numpy()[rows, batch.mlm_positions[rows, taken]]
    np.testing.assert_allclose(np.asarray(masked)[rows, taken, : ours.config.vocab_size], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(pairs, output.seq_relationship_logits.detach().numpy(), rtol=0, atol=1e-4)
    assert np.abs(pairs).mean() > 0.1
    np.testing.assert_allclose(float(found), output.loss.item(), rtol=1e-5)

    gradient = jax.tree.map(np.asarray, gradient)
    tied = decoder_aliases("bert")
    wanted = {tied.get(name, str(name)): p.grad.numpy() for name, p in theirs.named_parameters()}
    got = {spec.name: spec.from_leaf(leaf_of(gradient, spec.path)) for spec in tensor_specs(ours.config, gradient)}
    assert got.keys() == wanted.keys()
    floor = 1e-6 * max(np.linalg.norm(tensor) for tensor in wanted.values())
    errors = {name: np.linalg.norm(got[name] - tensor) / max(np.linalg.norm(tensor), floor)
              for name, tensor in wanted.items() if "key.bias" not in name}  # whose true gradient is 0
    assert max(errors.values()) < 1e-4, max(errors.items(), key=lambda item: item[1])


def test_metrics_are_of_tokens_and_of_pairs():
    found = MaskedPairs().metrics({"loss": 30.0, "correct": 5.0, "weight": 10.0, "tokens": 99.0,
                                   "pair_loss": 4.0, "pair_correct": 6.0, "pair_weight": 8.0})
    assert {name: round(value, 4) for name, value in found.items()} == {
        "loss": 3.0, "perplexity": 20.0855, "accuracy": 0.5, "pair_loss": 0.5, "pair_accuracy": 0.75}
    nothing = MaskedPairs().metrics(dict.fromkeys(("loss", "correct", "weight", "pair_loss", "pair_correct", "pair_weight"), 0.0))
    assert all(np.isnan(value) for value in nothing.values())


SHAPE = tiny_config(width=32, heads=4, ffn_width=64, layers=1, pooler=True, pair_head=True)


def test_eight_devices_with_accumulation_equal_one():
    """The mean over the pairs and the mean over the masked tokens are those of the whole batch, however it is divided."""
    found = []
    for sizes, parts in (((1, 1, 1), 1), ((2, 2, 2), 2)):
        mesh = sharding.make_mesh(config.Mesh(*sizes), jax.devices()[: np.prod(sizes)])
        state, step, put = trainer(SHAPE, mesh, accumulate=parts, task=MaskedPairs())
        numbers = []
        for i in range(4):
            state, metrics = step(state, put(pair_batch(seed=i)))
            numbers += [float(metrics[name]) for name in ("loss", "pair_loss", "grad_norm", "pair_weight")]
        assert step.traces == 1
        found.append(numbers)
    assert found[0][3] == 8
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_a_pair_loss_that_is_not_finite_changes_nothing():
    state, step, put = trainer(SHAPE, task=MaskedPairs())
    head = state.params["pair_head"]["out"]
    head["bias"] = head["bias"].at[0].set(np.inf)
    before = jax.device_get(state.params["encoder"])
    after, metrics = step(state, put(pair_batch()))
    assert float(metrics["nonfinite"]) == 1
    assert_bitwise(jax.device_get(after.params["encoder"]), before)


# ---------------------------------------------------------------- files


def test_the_export_is_a_masked_lm_and_keeps_the_head(stock, tmp_path):
    theirs, _, ours = stock
    export = resave(ours, tmp_path / "export")
    with checkpoints.listening() as heard:
        _, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert heard == [] and not any(report.values())
    again = hf.load(str(export), pairs=True)
    assert again.notes == [] and again.config == ours.config
    assert_bitwise(again.params, ours.params)
    # The two files together are BertForPreTraining.
    whole = transformers.BertForPreTraining(theirs.config).eval()
    tensors = {name: torch.tensor(tensor) for file in ("model", "pooler")
               for name, tensor in load_file(export / f"{file}.safetensors").items()}
    missing, unexpected = whole.load_state_dict(tensors, strict=False)
    assert set(missing) == set(decoder_aliases("bert")) and unexpected == []
    ids = torch.tensor(pair_batch().input_ids).long()
    with torch.no_grad():
        np.testing.assert_array_equal(whole(ids).seq_relationship_logits, theirs(ids).seq_relationship_logits)


def test_without_pairs_the_head_is_left_out_and_reported(stock):
    _, directory, ours = stock
    plain = hf.load(str(directory))
    assert plain.config == dataclasses.replace(ours.config, pair_head=False)
    assert "pair_head" not in plain.params and "cls.seq_relationship" in plain.notes[0]


def test_a_checkpoint_without_the_head_gets_a_random_one(tmp_path):
    directory = checkpoints.save(tmp_path / "bert", "bert")
    first, again, other = (hf.load(str(directory), pairs=True, seed=seed) for seed in (1, 1, 2))
    pooler, head = first.notes
    assert_says(pooler, "pooler", "random")
    assert_says(head, "head", "sentence pairs", "random")
    assert_bitwise(first.params, again.params)
    kernel = first.params["pair_head"]["out"]["kernel"]
    assert kernel.shape == (24, 2) and 0.01 < kernel.std() < 0.03 and not first.params["pair_head"]["out"]["bias"].any()
    assert not np.array_equal(kernel, other.params["pair_head"]["out"]["kernel"])
    assert_bitwise(first.params["encoder"], other.params["encoder"])


@pytest.mark.parametrize("family", ["roberta", "klue"])
def test_a_roberta_has_no_pairs(family, tmp_path):
    directory = checkpoints.save(tmp_path / family, family)
    with refuses("model.pairs", "roberta", "1", "bert"):
        hf.load(str(directory), pairs=True)


def test_a_new_model_with_pairs():
    tokenizer = checkpoints.tokenizer("bert")
    shape = new_config("tiny", tokenizer, 64, pairs=True)
    assert shape.pooler and shape.pair_head and shape.token_types == 2
    assert not new_config("tiny", tokenizer, 64).pair_head
    with refuses("model.pairs", "roberta", "vocab.kind=wordpiece"):
        new_config("tiny", checkpoints.tokenizer("roberta"), 64, pairs=True)
