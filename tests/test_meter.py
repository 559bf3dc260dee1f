"""Rows of the log: the sums of their steps, over a stop too, and a speed without compilation."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxplm.engine import meter as meters
from jaxplm.engine.compile_clock import CompileClock
from jaxplm.engine.meter import Meter
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


def test_the_speed_leaves_compilation_out(monkeypatch):
    now = 0.0
    monkeypatch.setattr(meters.time, "monotonic", lambda: now)
    meter = Meter(MaskedLanguageModelling())
    meter.read(step(1))
    meter.compiled(8.0)
    now = 10.0
    row = meter.report()
    assert row["tokens_per_second"] == 50
    assert row["seconds"] == 10
    meter.read(step(1))
    now = 12.0
    assert meter.report()["tokens_per_second"] == 50


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
