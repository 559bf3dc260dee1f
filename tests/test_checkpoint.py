"""Checkpoints: bit for bit, onto any mesh, never half, and damage is noticed."""

import logging
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from messages import assert_says, refuses

from jaxplm.checkpoint import manager
from jaxplm.checkpoint.manager import Checkpoints
from jaxplm.errors import UserError
from jaxplm.scores.metric import Metric, metric_named

_REPLICATED = P()


class State(NamedTuple):
    params: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array


def mesh(data: int, fsdp: int) -> Mesh:
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def make_state(seed: int, on: Mesh, width: int = 64) -> State:
    """A state as training has it: nested dicts, optax's tuples, an integer, a raw key, bfloat16, odd values."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(width, 128)).astype(np.float32)
    wide[0, :4] = [np.nan, -0.0, np.inf, 1e-42]  # not equal to itself, signed zero, infinite, subnormal
    params = {
        "encoder": {"kernel": put(wide, on, P(None, "fsdp")), "bias": put(rng.normal(size=128).astype(np.float32), on)},
        "half": put(rng.normal(size=(8, 3)).astype(jnp.bfloat16), on, P("fsdp" if on.shape["fsdp"] in (2, 4, 8) else None)),
        "nothing": put(np.zeros((0, 4), np.float32), on),
        "flags": put(rng.random(7) < 0.5, on),
    }  # fmt: skip
    opt_state = jax.tree.map(lambda x: put(np.zeros(x.shape, x.dtype), on, P(None, "fsdp") if x.shape == wide.shape else _REPLICATED),
                             jax.eval_shape(optax.adamw(1e-3).init, {"encoder": params["encoder"]}))
    return State(params, opt_state, put(np.int32(seed), on), put(np.array([seed, 7], np.uint32), on))


def put(x: Any, on: Mesh, spec: P = _REPLICATED) -> jax.Array:
    return jax.device_put(x, NamedSharding(on, spec))


def abstract(state: State, on: Mesh | None = None) -> State:
    def one(x: jax.Array) -> jax.ShapeDtypeStruct:
        sharding = x.sharding if on is None else NamedSharding(on, P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(one, state)


def assert_same_bits(a: State, b: State) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def on() -> Mesh:
    return mesh(2, 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, steps 1 and 2, to be copied and damaged."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory, keep=2, save_every=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step, mesh(2, 4)))
    return directory


# -------------------------------------------------------------------- what is written is what is read


@pytest.mark.slow
def test_round_trip_is_bitwise_and_keeps_shardings(tmp_path: Path, on: Mesh) -> None:
    state = make_state(3, on)
    with Checkpoints(tmp_path, keep=1, save_every=1) as checkpoints:
        assert checkpoints.restore_latest(abstract(state)) is None
        assert checkpoints.save(3, state)
    with Checkpoints(tmp_path, keep=1, save_every=1) as checkpoints:
        found = checkpoints.restore_latest(abstract(state))
    assert found is not None and found[1] == 3
    assert_same_bits(found[0], state)
    for x, y in zip(jax.tree.leaves(found[0]), jax.tree.leaves(state), strict=True):
        assert x.sharding == y.sharding


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1), (1, 8), (4, 2), (1, 1)])
def test_restores_onto_another_mesh(saved: Path, shape: tuple[int, int]) -> None:
    other = jax.sharding.Mesh(
        np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
    )  # fmt: skip
    target = make_state(0, other)
    with Checkpoints(saved, keep=2, save_every=1) as checkpoints:
        found = checkpoints.restore_latest(abstract(target))
    assert found is not None
    state = found[0]
    assert_same_bits(state, make_state(2, mesh(2, 4)))
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True):
        assert x.sharding == y.sharding


def test_restores_where_no_sharding_is_asked_for(saved: Path, on: Mesh) -> None:
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_state(0, on))
    with Checkpoints(saved, keep=2, save_every=1) as checkpoints:
        found = checkpoints.restore_latest(plain)
    assert found is not None
    assert_same_bits(found[0], make_state(2, on))


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path: Path, on: Mesh) -> None:
    state = make_state(5, on)
    want = jax.tree.map(np.asarray, state)
    step = jax.jit(lambda s: jax.tree.map(lambda x: jnp.zeros_like(x), s), donate_argnums=0)
    with Checkpoints(tmp_path, keep=1, save_every=1) as checkpoints:
        checkpoints.save(1, state)
        jax.block_until_ready(step(state))
        found = checkpoints.restore_latest(abstract(make_state(5, on)))
    assert found is not None
    for x, y in zip(jax.tree.leaves(found[0]), jax.tree.leaves(want), strict=True):
        assert np.asarray(x).tobytes() == y.tobytes()


def test_a_state_of_something_else_than_arrays_is_a_bug(tmp_path: Path) -> None:
    with (
        Checkpoints(tmp_path, keep=1, save_every=1) as checkpoints,
        refuses("rate", "float", error=TypeError),
    ):
        checkpoints.save(1, {"rate": 0.1})


# -------------------------------------------------------------------- what stays


@pytest.mark.parametrize("metric, best", [(metric_named("loss"), 2), (metric_named("f1"), 3)])
def test_keeps_the_newest_and_the_best(tmp_path: Path, on: Mesh, metric: Metric, best: int) -> None:
    metrics = {1: 3.0, 2: 1.0, 3: 9.0, 4: float("nan"), 5: None, 6: 2.0, 7: 9.0 if metric.higher_is_better else 1.0}
    with Checkpoints(tmp_path, keep=2, save_every=1, metric=metric) as checkpoints:
        for step, value in metrics.items():
            checkpoints.save(step, {"x": put(np.float32(step), on)}, value)
        checkpoints.wait()
        assert checkpoints.steps == [best, 6, 7]
        assert (checkpoints.best_step, checkpoints.latest_step) == (best, 7)
    with Checkpoints(tmp_path, keep=2, save_every=1, metric=metric) as checkpoints:  # remembered
        assert (checkpoints.best_step, checkpoints.latest_step) == (best, 7)
        found = checkpoints.restore_best({"x": jax.ShapeDtypeStruct((), jnp.float32)})
    assert found is not None and found[1] == best and found[0]["x"] == best
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, [best, 6, 7]))


def test_saves_when_due_or_forced_and_once(tmp_path: Path, on: Mesh) -> None:
    state = {"x": put(np.float32(0), on)}
    with Checkpoints(tmp_path, keep=9, save_every=3) as checkpoints:
        started = [checkpoints.save(step, state) for step in range(8)]
        assert started == [step in (3, 6) for step in range(8)]
        assert checkpoints.save(7, state, force=True)
        assert not checkpoints.save(7, state, force=True)
        assert checkpoints.steps == [3, 6, 7]


# -------------------------------------------------------------------- damage


def stored_numbers(step: Path) -> Path:
    """The file that holds the large arrays."""
    return max((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, cut, empty, flip])
@pytest.mark.parametrize("file", ["numbers", "state/manifest.ocdbt", "about/metadata"])
def test_damage_is_named_and_the_one_before_used(
    saved: Path,
    tmp_path: Path,
    on: Mesh,
    file: str,
    damage: Any,
    caplog: pytest.LogCaptureFixture,
    capfd: Any,
) -> None:
    directory = shutil.copytree(saved, tmp_path / "checkpoints")
    damage(stored_numbers(directory / "2") if file == "numbers" else directory / "2" / file)
    state = make_state(2, on)
    with (
        caplog.at_level(logging.WARNING, "jaxplm"),
        Checkpoints(directory, keep=2, save_every=1) as checkpoints,
    ):
        found = checkpoints.restore_latest(abstract(state))
        assert found is not None and found[1] == 1
        assert_same_bits(found[0], make_state(1, on))
        [message] = [record.getMessage() for record in caplog.records if record.name == "jaxplm"]
        assert_says(message, "step 2", "damaged", "step 1")
        assert "\n" not in message
        # The run resumes from step 1, and step 2 can be written again.
        assert checkpoints.latest_step == 1
        assert checkpoints.save(2, state)
        again = checkpoints.restore_latest(abstract(state))
        assert again is not None and again[1] == 2
        assert_same_bits(again[0], state)
    assert "Traceback" not in capfd.readouterr().err


def text_files(step: Path) -> list[str]:
    """The files of a checkpoint that are JSON: the description, and what Orbax writes about it."""
    return sorted(str(path.relative_to(step)) for path in step.rglob("*") if path.is_file() and path.read_bytes()[:1] == b"{")


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 200_000, "[]", "null", "\xff", ""], ids=lambda content: repr(content[:6]))
def test_json_that_is_deep_or_of_another_kind(saved: Path, tmp_path: Path, on: Mesh, content: str, caplog: pytest.LogCaptureFixture,
                                              capfd: Any) -> None:
    """In any JSON file of the newest checkpoint: its state as it was written, or the one before, named in one line."""
    names, used = text_files(saved / "2"), {}
    assert "about/metadata" in names and len(names) > 3
    for turn, name in enumerate(names):
        directory = shutil.copytree(saved, tmp_path / str(turn))
        (directory / "2" / name).write_bytes(content.encode("latin-1"))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "jaxplm"), Checkpoints(directory, keep=2, save_every=1) as checkpoints:
            found = checkpoints.restore_latest(abstract(make_state(0, on)))
            assert found is not None, name
            assert_same_bits(found[0], make_state(found[1], on))
            messages = [record.getMessage() for record in caplog.records if record.name == "jaxplm"]
            assert len(messages) <= 1
            if found[1] == 1:
                assert_says(messages[0], "step 2", "damaged", "step 1")
            elif messages:
                assert_says(messages[0], str(directory), name, "damaged")
            checkpoints.save(3, found[0])
            checkpoints.wait()
            assert checkpoints.latest_step == 3
        used[name] = found[1]
    assert used["about/metadata"] == 1 and used["_CHECKPOINT_METADATA"] == 2
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_every_flipped_bit_is_noticed_or_harmless(saved: Path, tmp_path: Path, on: Mesh) -> None:
    """Anywhere in the files: what comes back is one of the two states, exactly."""
    want = {step: make_state(step, on) for step in (1, 2)}
    rng = np.random.default_rng(0)
    names = [path.relative_to(saved) for path in sorted((saved / "2").rglob("*")) if path.is_file()]
    sizes = np.array([(saved / name).stat().st_size for name in names], float)
    sizes = np.maximum(sizes, sizes.max() / 20)  # the small ones too
    seen = set()
    for turn in range(25):
        directory = shutil.copytree(saved, tmp_path / str(turn))
        flip(directory / names[rng.choice(len(names), p=sizes / sizes.sum())], at=rng.random())
        with Checkpoints(directory, keep=2, save_every=1) as checkpoints:
            found = checkpoints.restore_latest(abstract(want[1]))
        assert found is not None
        assert_same_bits(found[0], want[found[1]])
        seen.add(found[1])
        shutil.rmtree(directory)
    assert seen == {1, 2}  # the test damaged both what matters and what does not


def test_best_falls_back_too_and_none_usable_ends_the_run(saved: Path, tmp_path: Path, on: Mesh) -> None:
    directory = shutil.copytree(saved, tmp_path / "checkpoints")
    for step in ("1", "2"):
        flip(stored_numbers(directory / step))
    target = abstract(make_state(0, on))
    with Checkpoints(directory, keep=2, save_every=1) as checkpoints:
        with refuses("2", "step 2"):
            checkpoints.restore_latest(target)
        with refuses("2"):
            checkpoints.restore_best(target)
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2"]  # nothing is thrown away


def test_all_processes_pass_over_what_one_of_them_cannot_read(
    saved: Path, tmp_path: Path, on: Mesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """This process reads step 2 without a fault and hears that another one did not."""
    directory = shutil.copytree(saved, tmp_path / "checkpoints")
    asked: list[bool] = []

    def all_agree(here: bool) -> bool:
        asked.append(here)
        return len(asked) != 2  # the description is read, then the arrays

    monkeypatch.setattr(manager, "all_agree", all_agree)
    with caplog.at_level(logging.WARNING, "jaxplm"), Checkpoints(directory, keep=2, save_every=1) as checkpoints:
        found = checkpoints.restore_latest(abstract(make_state(0, on)))
    assert found is not None and found[1] == 1 and asked == [True] * 4
    assert_same_bits(found[0], make_state(1, on))
    assert "step 2" in caplog.text and "another process" in caplog.text


def test_incompatible_checkpoint_names_what_differs(saved: Path, on: Mesh) -> None:
    other = abstract(make_state(0, on, width=32))
    other.params["extra"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    del other.params["flags"]
    with Checkpoints(saved, keep=2, save_every=1) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.restore_latest(other)
    message = str(caught.value)
    assert "\n" not in message
    assert_says(message, "params.extra", "params.flags", "params.encoder.kernel", "float32[64, 128]", "float32[32, 128]")


# -------------------------------------------------------------------- interrupted writes, full disks


@pytest.mark.slow
def test_killed_while_writing_leaves_complete_checkpoints(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, numpy as np, jax
        from jaxplm.checkpoint.manager import Checkpoints
        checkpoints = Checkpoints({str(tmp_path)!r}, keep=3, save_every=1)
        first = (checkpoints.latest_step or 0) + 1
        for step in range(first, first + 10_000):
            state = {{"x": jax.device_put(np.full((64, 1024), step, np.float32)), "y": jax.device_put(np.float32(step))}}
            checkpoints.save(step, state)
            print(step, flush=True)
    """)
    target = {"x": jax.ShapeDtypeStruct((64, 1024), jnp.float32), "y": jax.ShapeDtypeStruct((), jnp.float32)}
    latest = reached = 0
    for lines in (3, 7):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(lines):
            reached = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Checkpoints(tmp_path, keep=3, save_every=1) as checkpoints:
            found = checkpoints.restore_latest(target)
            assert found is not None and found[1] >= reached - 1 > latest
            latest = found[1]
            np.testing.assert_array_equal(found[0]["x"], np.full((64, 1024), latest, np.float32))
        assert all(path.name.isdigit() for path in tmp_path.iterdir())  # the half-written ones are gone


def test_no_space_is_said_before_writing(tmp_path: Path, on: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with Checkpoints(tmp_path, keep=1, save_every=1) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
        with refuses("checkpoint", "free"):
            checkpoints.save(1, make_state(1, on))
        assert checkpoints.steps == []


def test_no_space_while_writing(tmp_path: Path, on: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write fails in a thread, after save returned."""
    error = ValueError('RESOURCE_EXHAUSTED: Error writing "state/d/0": No space left on device')
    checkpoints = Checkpoints(tmp_path, keep=1, save_every=1)

    def fail() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "wait_until_finished", fail)
        with refuses("checkpoint", "free"):
            checkpoints.wait()
        error = ValueError("something else")
        with pytest.raises(ValueError, match="something else"):
            checkpoints.wait()
    checkpoints.close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refuses("checkpoints", "file"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1, save_every=1)
