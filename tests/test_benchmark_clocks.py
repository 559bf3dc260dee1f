"""The parts of the benchmarks of a start and of the input pipeline that a wrong figure could come from."""

import argparse
import json
import time

import data_rate
import pytest
import startup

pytestmark = pytest.mark.slow


@pytest.fixture
def now(monkeypatch):
    """A clock that moves when the test says so."""
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])

    def wait(seconds: float) -> None:
        at[0] += seconds

    return wait


def test_each_second_counts_once_in_the_innermost_part(now):
    clock = startup.Clock()

    def inner():
        now(3)

    def outer():
        now(1)
        clock.timed(inner, "inner")()
        now(2)

    now(5)
    clock.timed(outer, "outer")()
    now(7)
    assert clock.report() == {startup.REST: 12, "outer": 3, "inner": 3}


def test_a_part_that_fails_is_closed(now):
    clock = startup.Clock()
    with pytest.raises(ZeroDivisionError):
        clock.timed(lambda: 1 / 0, "part")()
    now(1)
    assert clock.report() == {"part": 0, startup.REST: 1}


def test_events_within_events_count_once(now):
    clock = startup.Clock()

    def part():
        now(1)
        now(2)
        clock.event("/jax/core/compile/jaxpr_trace_duration", 2)
        now(3)
        clock.event("/jax/core/compile/jaxpr_trace_duration", 3)
        now(1)
        clock.event("/jax/core/compile/jaxpr_trace_duration", 6)  # includes the two and one second
        now(4)
        clock.event("/jax/core/compile/backend_compile_duration", 4)
        clock.event("/jax/something/else", 4)

    clock.timed(part, "part")()
    assert clock.report() == {startup.REST: 0, "part": 1, "traced": 6, startup.EVENTS["backend_compile_duration"]: 4}


def test_parts_of_a_start_exist():
    import importlib

    for module, path, _ in startup.PARTS:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)


def test_a_corpus_many_times_over_repeats_no_text(tmp_path):
    (tmp_path / "corpus.txt").write_text("a text\nanother\n")
    data_rate.write_times(str(tmp_path / "corpus.txt"), 3, tmp_path / "many.jsonl")
    texts = [json.loads(line)["text"] for line in (tmp_path / "many.jsonl").read_text().splitlines()]
    assert texts == ["0 a text", "0 another", "1 a text", "1 another", "2 a text", "2 another"]


def test_rates():
    options = argparse.Namespace(seconds=0.1, rounds=3)
    rates = data_rate._rates(lambda step: time.sleep(0.005), options, rows=10, tokens=200)
    assert rates["batch_ms"] >= 5
    assert rates["rows_per_second"] == pytest.approx(10_000 / rates["batch_ms"])
    assert rates["tokens_per_second"] == pytest.approx(20 * rates["rows_per_second"])
    assert rates["tokens_per_core_second"] == pytest.approx(rates["tokens_per_second"] / rates["cores"])
