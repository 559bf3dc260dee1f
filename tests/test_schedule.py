"""What changes with the step: lengths of rows and the mask rate, as pure functions of its number."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import same, sentences, tiny_config, wordpiece
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses
from test_pipeline import PLAN, SPECIAL, STORE, masking

from jaxplm import hf, nn
from jaxplm.config import Compute, Config, Data, Mesh, Model, Train
from jaxplm.data.mlm.batches import MlmBatches
from jaxplm.data.mlm.mask import capacity
from jaxplm.data.mlm.pack import plan_rows
from jaxplm.data.mlm.schedule import MaskRate, SeqLenSchedule, SeqLenScheduledBatches
from jaxplm.devices import sharding
from jaxplm.engine import loop as engine_loop
from jaxplm.engine import step
from jaxplm.engine.setup import prepare, steps_in
from jaxplm.recipes.pretrain.job import Pretraining
from jaxplm.reporting.metric_log import read_metrics

SHORT = plan_rows(STORE, 12, "documents")


def batches(plan, first_step=0, mask_rate: float | MaskRate = 0.15, batch_size=8) -> MlmBatches:
    return MlmBatches(plan, masking(mask_rate), batch_size=batch_size, seed=3, first_step=first_step)


def lengths(share: float = 0.9) -> SeqLenSchedule:
    return SeqLenSchedule(share, SHORT.rows / 8, PLAN.rows / 8)


def test_steps_of_a_run():
    assert steps_in(Train(steps=7), 10.0) == 7 and steps_in(Train(steps=0), 10.0) == 0
    assert steps_in(Train(steps=None, epochs=1.5), 10.1) == 16
    assert steps_in(Train(steps=None, epochs=0.001), 10.0) == 1
    assert steps_in(Train(steps=None, epochs=1e6), 2147.0) == 2_147_000_000
    with refuses("train.epochs=1e+06", "2,148,000,000", "2,147,483,647"):
        steps_in(Train(steps=None, epochs=1e6), 2148.0)


@settings(deadline=None)
@given(st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.integers(1, 1000))
def test_the_rate_moves_on_a_line_and_never_outside(first, last, steps):
    rate = MaskRate(first, last, steps)
    found = [rate(step) for step in range(steps)]
    assert found[0] == first
    assert found[-1] == (last if steps > 1 else first)
    assert rate(steps + 5) == last
    assert all(min(first, last) <= one <= rate.highest for one in found)
    np.testing.assert_allclose(found, np.linspace(first, last, steps) if steps > 1 else [first])


@pytest.mark.parametrize(("first", "last"), [(0.4, 0.1), (0.1, 0.4)])
def test_each_step_masks_exactly_its_share(first, last):
    rate = MaskRate(first, last, 11)
    of = batches(PLAN, mask_rate=rate)
    counts = []
    for number in range(11):
        batch, rows = of.batch(number), PLAN.gather(of.rows_of_step(number), SPECIAL)
        assert batch.mlm_positions.shape == (8, capacity(0.4, 32)), "one shape"
        expected = np.rint(rate(number) * rows.maskable.sum(axis=1))
        assert (batch.mlm_weights.sum(axis=1) == expected).all()
        counts.append(expected.sum())
    assert (counts[0] - counts[-1]) * (first - last) > 0
    assert abs(counts[0] / counts[-1] - first / last) < 0.3 * first / last


def test_a_rate_that_stays_is_the_plain_one():
    for number in (0, 5):
        assert same(batches(PLAN, mask_rate=MaskRate(0.15, 0.15, 9)).batch(number), batches(PLAN).batch(number))


@pytest.mark.parametrize(("share", "steps", "short"), [(0.9, 100, 90), (0.9, 5, 4), (0.5, 3, 2), (0.01, 10, 0), (0.9, 1, 1), (0.9, 0, 0)])
def test_short_rows_come_first(share, steps, short):
    both = SeqLenScheduledBatches(batches(SHORT), lambda first: batches(PLAN, first), lengths(share), steps)
    assert both.short_steps == short
    for number in range(steps):
        assert both.batch(number).input_ids.shape == (8, 12 if number < short else 32)
    assert same(both.batch(short), batches(PLAN, short).batch(short))
    if short:
        assert same(both.batch(short - 1), batches(SHORT).batch(short - 1))


def tokens_of(batch) -> np.ndarray:
    """The original tokens of a batch, sorted, without special ones."""
    ids = batch.input_ids.copy()
    used = batch.mlm_weights > 0
    rows = np.nonzero(used)[0]
    ids[rows, batch.mlm_positions[used]] = batch.mlm_labels[used]
    return np.sort(ids[ids >= 10])


def test_long_rows_begin_an_epoch():
    """Every token once, whichever step the second phase begins with; with masks of their own."""
    one = batches(PLAN, 37, batch_size=1)
    found = np.concatenate([tokens_of(one.batch(37 + i)) for i in range(PLAN.rows)])
    assert np.sort(found).tolist() == STORE.tokens.tolist()
    assert not same(batches(PLAN, 3).batch(3), batches(PLAN).batch(0))
    assert (batches(PLAN, 3).rows_of_step(3) == batches(PLAN).rows_of_step(0)).all()


def test_an_epoch_is_a_pass_over_the_text():
    for share in (0.3, 0.9):
        shared = lengths(share)
        steps = 100_000
        short = shared.short_steps(steps)
        passes = short / shared.short_epoch + (steps - short) / shared.long_epoch
        assert abs(steps / shared.steps_per_epoch - passes) < 1e-3 * passes
    both = SeqLenScheduledBatches(batches(SHORT), lambda first: batches(PLAN, first), lengths(), 100)
    assert PLAN.rows / 8 < both.steps_per_epoch < SHORT.rows / 8
    assert PLAN.real_tokens < both.real_tokens < SHORT.real_tokens


# ---------------------------------------------------------------- in the loop


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model of one narrow block, and texts of four sentences."""
    directory = tmp_path_factory.mktemp("schedule")
    tokenizer, _ = hf.load_tokenizer(wordpiece(directory / "tokenizer"), "the tokenizer")
    shape = tiny_config(vocab_size=len(tokenizer), width=16, layers=1, heads=2, ffn_width=24, max_positions=32)
    hf.save(directory / "model", shape, nn.random_params(shape, 0), tokenizer, {})
    lines = sentences(400, length=20)
    (directory / "texts.txt").write_text("\n".join(" ".join(lines[i : i + 4]) for i in range(0, 400, 4)) + "\n")
    return directory


def configured(place: Path, steps: int | None = 10) -> Config:
    return Config(model=Model(path=str(place / "model"), dropout=0.1),
                  data=Data(train=str(place / "texts.txt"), seq_len=32, short_len=12, short_share=0.6, mask_rate=0.3, mask_rate_end=0.15,
                            eval_rows=16),
                  train=Train(steps=steps, batch_size=8, eval_every=100, log_every=1, learning_rate=1e-3),
                  compute=Compute("float32", unroll=False))


def loop(config: Config, workdir: Path) -> engine_loop.Run:
    """The loop of a run on one device, before its first step."""
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    return engine_loop.Run(prepare(config, workdir, Pretraining, mesh=mesh, compute=nn.Compute()), workdir, "")


def go(run: engine_loop.Run, state: step.TrainState, start: int, stop: int, compiled: engine_loop.Run) -> step.TrainState:
    """Steps on the batches of `run`, by the compiled step of `compiled`."""
    for number in range(start, stop):
        state, metrics = compiled.setup.train_step(state, run.device_batch(number))
        assert float(metrics["nonfinite"]) == 0
    return state


@pytest.mark.slow
def test_a_run_resumed_in_either_phase_is_bitwise_the_same(place, tmp_path):
    whole = loop(configured(place), tmp_path)
    assert isinstance(whole.job.train, SeqLenScheduledBatches)
    assert whole.setup.steps == 10 and whole.job.train.short_steps == 6
    states = {}
    state = whole.setup.first_state(whole.job.params)
    for start, stop in ((0, 3), (3, 8), (8, 10)):
        state = go(whole, state, start, stop, whole)
        states[stop] = jax.device_get(state)
    assert whole.setup.train_step.traces == 2, "one compilation for each length"
    again = loop(configured(place), tmp_path)
    for stopped in (3, 8):  # among the short rows, among the long ones
        saved = jax.tree.map(lambda leaf, target: jax.device_put(np.array(leaf), target.sharding), states[stopped], again.setup.state)
        assert same(jax.device_get(go(again, saved, stopped, 10, whole)), states[10])
    assert whole.setup.train_step.traces == 2


@pytest.mark.slow
def test_the_whole_run(place, tmp_path, monkeypatch):
    """Rows of both lengths are trained on, evaluation has the long ones, and the report says so."""
    one_device = sharding.make_mesh(Mesh(), jax.devices()[:1])  # two shapes are compiled: for eight devices, slowly
    monkeypatch.setattr(sharding, "make_mesh", lambda config: one_device)
    engine_loop.run(configured(place), tmp_path / "run", "the command", Pretraining)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if row["split"] == "train"]
    assert len(rows) == 10
    tokens = np.array([row["tokens"] for row in rows])
    assert (tokens[:6] <= 8 * 12).all() and (tokens[6:] > 8 * 16).all()
    report = (tmp_path / "run" / "report.md").read_text("utf-8")
    for said in ("× 12,", "for 6 steps; then", "× 32,", "30% → 15% of the tokens", "training 2"):
        assert said in report


@pytest.mark.slow
def test_the_job_and_the_loop_count_the_same_steps(place, tmp_path):
    config = configured(place, None)
    config.train.epochs = 2.0
    run = loop(config, tmp_path)
    both = run.job.train
    assert isinstance(both, SeqLenScheduledBatches)
    assert both.short_steps == round(0.6 * run.setup.steps)
    # Passes over the text, counted in the batches themselves, without padding (0), [CLS] (2) and [SEP] (3).
    trained = sum(int((~np.isin(both.batch(i).input_ids, (0, 2, 3))).sum()) for i in range(run.setup.steps))
    found = re.search(r"texts, ([\d,]+) tokens", run.job.facts(run.setup.steps).data["training text"])
    assert found
    assert abs(trained / int(found[1].replace(",", "")) - 2.0) < 0.1
