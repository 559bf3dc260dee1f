"""The lowered train step of a job: from abstract values, for any mesh, with nothing compiled and nothing placed."""

import contextlib
import re
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from helpers import random_batch, sentences, tiny_config, wordpiece

from jaxplm import config, hf, nn
from jaxplm.config import Config, Data, Mesh, Model, Train
from jaxplm.devices import sharding
from jaxplm.engine.setup import TrainSetup, prepare
from jaxplm.recipes.pretrain.job import Pretraining
from jaxplm.tasks.mlm import MaskedLanguageModelling


@pytest.fixture(scope="module")
def configured(tmp_path_factory) -> Config:
    """MLM training of a model of 3 layers on a file of texts."""
    place = tmp_path_factory.mktemp("setup")
    tokenizer = hf.load_tokenizer(wordpiece(place / "tokenizer"), "")[0]
    encoder_config = tiny_config(vocab_size=len(tokenizer), width=128, heads=4)
    hf.save(place / "model", encoder_config, nn.random_params(encoder_config, 0), tokenizer, {"model_type": "bert"})
    (place / "texts.txt").write_text("\n".join(sentences(200)) + "\n")
    return Config(model=Model(path=str(place / "model")), data=Data(train=str(place / "texts.txt"), seq_len=32, eval_rows=16),
                  train=Train(steps=10, batch_size=16, accumulate=2))


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What XLA compiles inside this context."""
    events: list[str] = []

    def listen(event: str, seconds: float, **_: object) -> None:
        if "backend_compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_a_job_hands_out_its_lowered_step(configured, tmp_path):
    """Of the loop's own objects, for a mesh that is given; the host's data tell the shapes and stay on the host."""
    mesh = sharding.make_mesh(Mesh(2, 2, 2))
    prepared = prepare(configured, tmp_path, Pretraining, mesh=mesh, compute=nn.Compute("bfloat16", "bfloat16"))
    arrays_before = {id(array) for array in jax.live_arrays()}
    with compilations() as compiled:
        lowered = prepared.lower()
    assert compiled == []
    assert {id(array) for array in jax.live_arrays()} <= arrays_before, "nothing is placed on a device"
    assert prepared.setup.train_step.traces == 1

    text = lowered.as_text()
    assert "module @jit_train_step" in text
    assert "mhlo.num_partitions = 8" in text
    rows = prepared.job.train.batch(0).input_ids.shape
    assert rows == (16, 32) and re.search(r"tensor<16x32xi32>", text), "a whole batch goes in"
    assert "tensor<2x8x32xi32>" in text, "and is computed in two parts"
    assert "bf16" in text and "stablehlo.dot_general" in text
    state = jax.tree.leaves(prepared.setup.state)
    assert len(jax.tree.leaves(lowered.args_info)) == len(state) + 6
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding.mesh == mesh for leaf in state)


@pytest.mark.slow
def test_what_is_lowered_is_what_the_loop_runs(configured, tmp_path):
    """The step that is compiled from the lowered program and the loop's own one give the same numbers, from one trace."""
    prepared = prepare(configured, tmp_path, Pretraining, mesh=sharding.make_mesh(Mesh(), jax.devices()[:1]), compute=nn.Compute())
    setup = prepared.setup
    with compilations() as events:
        compiled = prepared.lower().compile()
    assert len(events) == 1, "compilations are noticed"
    batch = sharding.put_batch(prepared.job.train.batch(0), prepared.job.rows, prepared.mesh)
    found = [step(setup.first_state(prepared.job.params), batch) for step in (compiled, setup.train_step)]
    assert setup.train_step.traces == 1
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_abstract_parameters_are_enough():
    mesh = sharding.make_mesh(config.Mesh(), jax.devices()[:4])
    graph, abstract = nn.abstract_model(tiny_config())
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(abstract))
    setup = TrainSetup(graph, abstract, MaskedLanguageModelling(), Train(), 100, mesh, nn.Compute())
    lowered = setup.lower(sharding.abstract_batch(random_batch(), 8, mesh))
    assert "tensor<8x24xi32>" in lowered.as_text() and setup.train_step.traces == 1


@pytest.mark.slow
def test_a_mesh_of_devices_elsewhere(configured, tmp_path, monkeypatch):
    """A job for it makes batches of no rows, which still tell the shapes of whole batches."""
    mesh = sharding.make_mesh(Mesh())
    np.testing.assert_array_equal(sharding.local_rows(16, mesh), np.arange(16))
    here = prepare(configured, tmp_path, Pretraining, mesh=mesh, compute=nn.Compute())
    monkeypatch.setattr(jax.sharding.NamedSharding, "addressable_devices_indices_map", lambda self, shape: {})
    assert sharding.local_rows(16, mesh).shape == (0,)
    elsewhere = prepare(configured, tmp_path, Pretraining, mesh=mesh, compute=nn.Compute())
    assert elsewhere.job.train.batch(0).input_ids.shape == (0, 32)
    assert elsewhere.lower().as_text() == here.lower().as_text()
