"""A frozen encoder's vectors, computed once, train the same head as the frozen encoder itself; nothing else moves."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import make_model
from helpers import WORDS, same
from messages import assert_says, refuses

from jaxplm import hf, main
from jaxplm.config import Config, Data, Model, Task, Train
from jaxplm.data.batch import FeatureBatch
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.devices.processes import gather
from jaxplm.engine import loop as engine_loop
from jaxplm.engine.setup import prepare
from jaxplm.nn import paths
from jaxplm.recipes.finetune.builder import build_job
from jaxplm.recipes.finetune.cached_features import VectorCache, fingerprint_of
from jaxplm.recipes.finetune.head_on_features import HeadOnFeatures
from jaxplm.recipes.finetune.whole_model import WholeModel
from jaxplm.tasks.kinds import KINDS

STEPS = 5


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_rows(kind: str, count: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = random.choice(WORDS, random.integers(2, 14)).tolist()
        if kind == "tag":
            made.append({"tokens": words, "tags": ["B-X" if word[0] in "bdr" else "O" for word in words]})
        elif kind == "qa":
            context = " ".join(words)
            answer = words[int(random.integers(len(words)))]
            made.append({"question": "the cat", "context": context, "answers": [{"text": answer, "answer_start": context.index(answer)}]})
        else:
            made.append({"text": " ".join(words), "label": "long" if len(words) > 7 else "short"})
    return made


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint of two blocks and data for every kind."""
    here = tmp_path_factory.mktemp("vectors")
    make_model(here / "model")
    for kind in ("classify", "tag", "qa"):
        write_rows(here / f"{kind}.jsonl", make_rows(kind, 50, 0))
        write_rows(here / f"{kind}-dev.jsonl", make_rows(kind, 20, 1))
    return here


def config_of(start: Path, kind: str, cache: str, *, freeze: tuple[str, ...] = ("encoder",), **task: Any) -> Config:
    made = Config(
        recipe="feature_extraction", seed=3, model=Model(path=str(start / "model"), dropout=0.0, attention_dropout=0.0),
        data=Data(train=str(start / f"{kind}.jsonl"), validation=str(start / f"{kind}-dev.jsonl"), seq_len=24),
        task=Task(kind=kind, dropout=0.0, cache=cache, overlap=4, body_width=16, **task),
        train=Train(steps=STEPS, batch_size=8, learning_rate=1e-2, weight_decay=0.1, warmup=1, clip=0.5, freeze=freeze))
    made.compute.dtype = "float32"
    made.compute.unroll = False
    main.resolve(made, set())
    return made


def begun(config: Config, workdir: Path) -> engine_loop.Run:
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    compute = resolve_compute(config.compute, mesh)
    make_job = partial(build_job, vectors=workdir / "vectors")
    return engine_loop.Run(prepare(config, workdir, make_job, mesh=mesh, compute=compute), workdir, "")


def trained(config: Config, workdir: Path) -> tuple[engine_loop.Run, Any, list[dict[str, float]]]:
    """The run, its last state, and what was measured of every step and of the validation set."""
    run = begun(config, workdir)
    state, rows = run.setup.first_state(run.job.params), []
    for step in range(STEPS):
        state, values = run.setup.train_step(state, run.device_batch(step))
        rows.append({name: float(value) for name, value in values.items()})
    rows.append({name: value for name, value in run.job.evaluate(state.params)["validation"].items() if name != "seconds"})
    return run, state, rows


CASES = [("classify", {}), ("classify", {"pooling": "mean", "layers": "mix"}), ("classify", {"pooling": "max", "layers": "last4"}),
         ("tag", {}), ("tag", {"body": "lstm", "layers": "mix"}), ("qa", {})]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "task"), CASES, ids=[f"{kind} {' '.join(task.values())}" for kind, task in CASES])
def test_cached_is_frozen(start, tmp_path, kind, task):
    run, state, rows = trained(config_of(start, kind, "off", **task), tmp_path / "off")
    cached, cached_state, cached_rows = trained(config_of(start, kind, "auto", **task), tmp_path / "auto")
    assert isinstance(run.job, WholeModel) and isinstance(cached.job, HeadOnFeatures)
    assert not (tmp_path / "off" / "vectors").exists() and len(list((tmp_path / "auto" / "vectors").glob("*.npy"))) == 2
    assert isinstance(cached.job.train.batch(0), FeatureBatch)
    assert run.job.rows == cached.job.rows and run.setup.steps == cached.setup.steps

    for row, cached_row in zip(rows, cached_rows, strict=True):
        assert row.keys() == cached_row.keys()
        for name, value in row.items():
            np.testing.assert_allclose(cached_row[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert rows[STEPS - 1]["loss"] != rows[0]["loss"] and rows[0]["tokens"] > 0
    head, cached_head = paths.named(state.params["head"]), paths.named(cached_state.params["head"])
    assert head.keys() == cached_head.keys() and cached_state.params.keys() == {"head"}
    moved = 0.0
    for name, leaf in head.items():
        if (kind, name) == ("qa", "out/bias"):
            continue  # one number more on every token changes no loss: its gradient is rounding, which Adam makes large
        np.testing.assert_allclose(np.asarray(cached_head[name]), np.asarray(leaf), rtol=0, atol=1e-5, err_msg=name)
        moved = max(moved, float(np.abs(np.asarray(leaf) - np.asarray(paths.named(run.job.params["head"])[name])).max()))
    assert moved > 1e-2, "the head has learned"

    assert same(state.params["encoder"], run.job.params["encoder"]), "the frozen encoder is bitwise that of the start"
    for made, ended in ((run, state), (cached, cached_state)):
        kept = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(ended.opt_state) if leaf.size > 1]
        assert not [path for path in kept if "encoder" in path], "the optimizer keeps nothing for the encoder"
        moments = sum(leaf.size for leaf in jax.tree.leaves(ended.opt_state))
        assert moments <= 2 * sum(leaf.size for leaf in jax.tree.leaves(made.job.params["head"])) + 10


@pytest.mark.slow
def test_the_export_of_a_cached_head_has_the_encoder_of_the_start(start, tmp_path):
    run, state, _ = trained(config_of(start, "classify", "on", pooling="mean"), tmp_path)
    run.job.finish(state.params, lambda split, found: None)
    run.job.export(tmp_path / "export", gather(state.params), run._facts(STEPS, []), [])
    loaded = hf.load_task_model(str(tmp_path / "export"), KINDS)
    assert same(loaded.params["encoder"], hf.load(str(start / "model")).params["encoder"])
    assert same(loaded.params["head"], state.params["head"])
    assert loaded.labels == ("long", "short")


@pytest.mark.slow
def test_a_part_of_the_head_may_be_frozen_as_well(start, tmp_path):
    config = config_of(start, "classify", "auto", freeze=("encoder", "head/dense"))
    run, state, _ = trained(config, tmp_path)
    assert isinstance(run.job, HeadOnFeatures) and run.job.settings.freeze == ("head/dense",)
    assert same(state.params["head"]["dense"], run.job.params["head"]["dense"])
    assert not same(state.params["head"]["out"], run.job.params["head"]["out"])


@pytest.mark.parametrize("freeze", [("encoder/embeddings",), ("encoder/blocks/0/",), ("head/out",), ()])
def test_an_encoder_that_moves_is_not_cached(start, tmp_path, freeze):
    config = config_of(start, "classify", "auto", freeze=freeze)
    assert isinstance(begun(config, tmp_path).job, WholeModel)
    config.task.cache = "on"
    with refuses("task.cache=on", "train.freeze=", "('encoder',)"):
        begun(config, tmp_path)


def stamps(workdir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (workdir / "vectors").glob("*.npy")}


@pytest.mark.slow
def test_vectors_are_found_again_and_those_of_others_are_not_used(start, tmp_path):
    config = config_of(start, "classify", "auto")
    workdir = tmp_path / "run"
    first = begun(config, workdir)
    before = stamps(workdir)
    assert before.keys() == {"train.npy", "validation.npy"}
    again = begun(config, workdir)
    assert stamps(workdir) == before, "they are on disk, and nothing was computed"
    for i in range(3):
        assert same(first.job.train.batch(i), again.job.train.batch(i))

    begun(dataclasses.replace(config, seed=11), workdir)
    assert stamps(workdir) == before, "another seed has the same"

    # Other labels, and other texts in one of the sets: this set's vectors alone.
    relabelled = [row | {"label": row["label"].upper()} for row in make_rows("classify", 50, 0)]
    data = dataclasses.replace(config.data, train=str(write_rows(tmp_path / "train.jsonl", relabelled)),
                               validation=str(write_rows(tmp_path / "dev.jsonl", relabelled[:5])))
    begun(dataclasses.replace(config, data=data), workdir)
    after = stamps(workdir)
    assert after["train.npy"] == before["train.npy"] and after["validation.npy"] != before["validation.npy"]

    # Another encoder, another pooling.
    reinitialised = dataclasses.replace(config, train=dataclasses.replace(config.train, reinit_layers=1))
    begun(reinitialised, workdir)
    last = stamps(workdir)
    assert last["train.npy"] != before["train.npy"]
    begun(dataclasses.replace(reinitialised, task=dataclasses.replace(config.task, pooling="mean")), workdir)
    assert stamps(workdir)["train.npy"] != last["train.npy"]


@pytest.mark.slow
def test_a_file_that_was_cut_short_by_a_kill_is_not_used(start, tmp_path):
    config = config_of(start, "classify", "auto")
    first = begun(config, tmp_path)
    expected = first.job.train.batch(0)
    (tmp_path / "vectors" / "train.json").unlink()
    (tmp_path / "vectors" / "train.npy").write_bytes(b"half")
    (tmp_path / "vectors" / "train.partial.npy").write_bytes(b"half")
    assert same(begun(config, tmp_path).job.train.batch(0), expected)
    assert not list((tmp_path / "vectors").glob("*.partial*"))


DAMAGES = {
    "a flipped bit of a number": ("train.npy", lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]),
    "a flipped bit of the header": ("train.npy", lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:]),
    "cut short": ("train.npy", lambda content: content[: len(content) // 2]),
    "nothing": ("train.npy", lambda content: b""),
    "a note of another file": ("train.json", lambda content: content.replace(b'"checksum": "', b'"checksum": "0')),
    "a note that is no object": ("train.json", lambda content: b"[1]"),
    "a note without a checksum": ("train.json", lambda content: b'{"fingerprint": "x"}'),
    "a note of broken text": ("train.json", lambda content: b"\xff\xfe"),
    "a deep note": ("train.json", lambda content: b"[" * 200_000),
}


@pytest.mark.slow
def test_damaged_vectors_are_named_and_computed_again(start, tmp_path, caplog):
    config, workdir = config_of(start, "classify", "auto"), tmp_path / "run"
    expected = begun(config, workdir).job.train.batch(0)
    kept = {path.name: path.read_bytes() for path in (workdir / "vectors").iterdir()}
    before = stamps(workdir)
    for why, (name, damage) in DAMAGES.items():
        path = workdir / "vectors" / name
        path.write_bytes(damage(path.read_bytes()))
        caplog.clear()
        assert same(begun(config, workdir).job.train.batch(0), expected), why
        [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert_says(said, str(path))
        assert {path.name: path.read_bytes() for path in (workdir / "vectors").iterdir()} == kept, why
        assert stamps(workdir)["validation.npy"] == before["validation.npy"], "this set's vectors alone"


@pytest.mark.slow
def test_no_space_for_vectors(start, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with refuses("space", "vectors", "task.cache=off"):
        begun(config_of(start, "classify", "auto"), tmp_path)


@pytest.mark.slow
def test_a_workdir_that_is_a_file(start, tmp_path):
    (tmp_path / "taken").write_text("")
    with refuses(str(tmp_path / "taken")):
        begun(config_of(start, "classify", "auto"), tmp_path / "taken")


def test_fingerprints():
    params = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.float32)}
    one = fingerprint_of(params, np.arange(3))
    assert one == fingerprint_of(jax.tree.map(np.copy, params), np.arange(3))
    changed = jax.tree.map(np.copy, params)
    changed["b"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert len({one, fingerprint_of(changed, np.arange(3)), fingerprint_of(params, np.arange(1, 4)), fingerprint_of(params)}) == 4
    assert VectorCache.__doc__ and "complete or absent" in VectorCache.__doc__


@pytest.mark.slow
def test_the_frozen_step_costs_at_most_two_fifths(tmp_path):
    """FLOPs of the compiled step. A forward pass is a third of a step; the head's share vanishes with the layers."""
    make_model(tmp_path / "model", num_hidden_layers=4, hidden_size=64, intermediate_size=256)
    write_rows(tmp_path / "classify.jsonl", make_rows("classify", 50, 0))
    write_rows(tmp_path / "classify-dev.jsonl", make_rows("classify", 20, 1))
    flops = {}
    for freeze in ((), ("encoder",)):
        config = config_of(tmp_path, "classify", "off", freeze=freeze)
        config.compute.unroll = True  # the compiler's count takes the body of a loop once
        run = begun(config, tmp_path / "run")
        batch = run.job.train.batch(0)
        cost = run.prepared.lower().compile().cost_analysis()
        flops[freeze] = cost["flops"] if isinstance(cost, dict) else cost[0]["flops"]
    assert flops[("encoder",)] <= 0.4 * flops[()], flops
    params = paths.named(run.job.params)
    forward = 2 * sum(leaf.size for name, leaf in params.items() if "blocks" in name and name.endswith("kernel"))
    assert flops[()] > forward * batch.input_ids.size, "the count has the layers in it"
