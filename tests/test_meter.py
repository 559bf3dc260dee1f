"""Rows of the log: the sums of their steps, over a stop too, and a speed without compilation."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxplm.config import Config, Train
from jaxplm.engine import meter as meters
from jaxplm.engine.compile_clock import CompileClock
from jaxplm.engine.loop import Run
from jaxplm.engine.meter import Meter
from jaxplm.scores.metric import Metric
from jaxplm.tasks.mlm import MaskedLanguageModelling


def step(loss: float, nonfinite: float = 0.0) -> dict[str, jax.Array]:
    values = {"loss": loss * 10, "weight": 10.0, "correct": 3.0, "tokens": 100.0, "characters": 40.0,
              "grad_norm": 1.0, "learning_rate": 0.5, "nonfinite": nonfinite}
    return {name: jnp.float32(value) for name, value in values.items()}


def without_clocks(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("seconds", "tokens_per_second")}


def test_a_meter_that_resumes_reports_the_row_of_one_that_did_not_stop():
    losses = [1 / 3, 2 / 7, 5 / 9]
    whole, before, after = (Meter(MaskedLanguageModelling()) for _ in range(3))
    for loss in losses:
        whole.read(step(loss))
    before.read(step(losses[0]))
    before.read(step(9, nonfinite=1.0))
    after.resume(json.loads(json.dumps(before.state())))
    assert after.nonfinite_in_a_row == 1
    for loss in losses[1:]:
        after.read(step(loss))
    want = without_clocks(whole.report()) | {"skipped_steps": 1}
    assert without_clocks(after.report()) == want


def test_the_speed_leaves_the_steps_that_compiled_out(monkeypatch):
    now = 0.0
    monkeypatch.setattr(meters.time, "monotonic", lambda: now)
    meter = Meter(MaskedLanguageModelling())
    mark, now = meter.mark(), 10.0  # 8 s of compilation, and 1.5 s until the kernels are loaded
    meter.read(step(1))
    meter.compiled(mark, 8.0)
    resumed = Meter(MaskedLanguageModelling())
    resumed.resume(json.loads(json.dumps(meter.state())))
    now = 12.0
    for one in (meter, resumed):
        one.read(step(1))
        row = one.report()
        assert (row["tokens_per_second"], row["tokens"], row["seconds"]) == (50, 200, 12)
    with meter.paused():
        now = 20.0
    mark, now = meter.mark(), 30.0
    meter.read(step(1))
    meter.compiled(mark, 8.0)
    assert meter.report()["tokens_per_second"] == 50  # no other step in the row: all but the compilation


def test_every_speed_of_a_run_is_that_of_its_steps(monkeypatch, tmp_path):
    """Compilation happens on the host at the first step and where rows have another shape."""
    now, free = 0.0, 0.0  # the host's time; when the device has done all steps
    monkeypatch.setattr(meters.time, "monotonic", lambda: now)

    class TrainStep:
        traces, calls = 0, 0

        def __call__(self, state: object, batch: object) -> tuple[object, dict[str, Any]]:
            nonlocal now, free
            self.calls += 1
            compiles = self.calls in (1, 12)
            self.traces += compiles
            now += 58.0 * compiles
            free = max(free, now) + (6.0 if compiles else 2.0)  # the first execution loads the kernels
            return state, step(1) | {"done": free}

    def device_get(values: dict[str, Any]) -> dict[str, Any]:
        nonlocal now
        now = max(now, values.pop("done"))
        return values

    monkeypatch.setattr(meters.jax, "device_get", device_get)
    settings = Train(steps=20, log_every=5, eval_every=20)
    job = SimpleNamespace(settings=settings, task=MaskedLanguageModelling(), metric=Metric("loss", False), rows=2)
    setup = SimpleNamespace(steps=20, train_step=TrainStep())
    prepared: Any = SimpleNamespace(config=Config(train=settings), job=job, setup=setup)
    run = Run(prepared, tmp_path, "")
    rows: list[dict[str, float]] = []
    monkeypatch.setattr(run, "device_batch", lambda index: None)
    monkeypatch.setattr(run, "_evaluate", lambda *args: 1.0)
    state: Any = SimpleNamespace(params=None)
    log: Any = SimpleNamespace(write=lambda step, split, values: rows.append(values))
    checkpoints: Any = SimpleNamespace(note=lambda step: None, is_due=lambda step, force: False, save=lambda *args, **named: False)
    stop: Any = SimpleNamespace(agreed=lambda: None)
    run._loop(state, 0, log, checkpoints, stop)
    assert [row["tokens_per_second"] for row in rows] == [50] * 4
    assert [row["seconds"] for row in rows] == [72, 10, 70, 10]  # in the third row a step of 2 s runs during the compilation


def test_the_clock_counts_compilations_and_nothing_else():
    function = jax.jit(lambda x: jnp.tanh(x @ x) * 3.25)
    x = jnp.ones((8, 8))
    clock = CompileClock()
    with clock.running():
        function(x)
    assert clock.seconds > 0
    with clock.running():
        function(x)
    assert clock.seconds == pytest.approx(0)
