"""Models with exBERT's extension: save and load, what transformers does with the files, and tasks on such models."""

import dataclasses
import functools
import json

import checkpoints
import jax
import numpy as np
import pytest
import transformers
from checkpoints import assert_bitwise, reconfigure, refused, resave, rewrite
from flax import nnx
from helpers import same
from messages import assert_says, refuses
from safetensors.numpy import load_file

import jaxplm
from jaxplm import hf, nn
from jaxplm.config import Config, Data, Model, Task, Train
from jaxplm.data.batch import FeatureBatch
from jaxplm.devices import sharding
from jaxplm.devices.compute import resolve_compute
from jaxplm.engine import loop as engine_loop
from jaxplm.engine.setup import prepare
from jaxplm.nn import paths
from jaxplm.nn.exbert.modules import GATE_SCALE
from jaxplm.recipes.finetune.builder import build_job
from jaxplm.recipes.finetune.start_model import reinitialised
from jaxplm.tasks.kinds import KINDS

UP = "encoder/extension/blocks/mlp/up/kernel"
NEW = ["reads", "jumped", "domains"]
TEXTS = ["the dog reads a text of domains", "the fox jumped", "a model of the language"]


def with_extension(directory, family):
    """The directory of a base, and that of the same with an extension: half open gates that differ from token to token."""
    tokenizer = checkpoints.tokenizer(family)
    sizes = checkpoints.SMALL | {"vocab_size": len(tokenizer)}
    base = checkpoints.save(directory / "base", family, sizes=sizes)
    loaded = hf.load(str(base))
    if family == "bert":
        words = {token: i for i, token in enumerate([*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__), *NEW])}
        larger = transformers.BertTokenizer(vocab=words, do_lower_case=False)
    else:
        larger = checkpoints.tokenizer(family)
        larger.add_tokens(NEW)
    random = np.random.default_rng(0)
    extension = nn.extension_config(loaded.config, len(NEW), 0.5)
    params, config = nn.extend_params(loaded.params, loaded.config, extension, random.normal(0, 0.1, (3, 24)).astype(np.float32),
                                      random.normal(0, 1, 3).astype(np.float32))
    gate = params["encoder"]["extension"]["blocks"]["gate"]
    gate["kernel"][...], gate["bias"][...] = random.normal(0, 0.3 / GATE_SCALE, gate["kernel"].shape), [0.3 / GATE_SCALE, -0.2 / GATE_SCALE]
    saved = hf.save(directory / "extended", config, params, larger, loaded.hf_config, files={"README.md": "# A card\n"})
    return base, saved, config, params, larger


@functools.partial(jax.jit, static_argnums=0)
def every_layer(graph, params, ids):
    """[N + 1, L, D] of one text; compiled, for op by op each loop would be compiled again."""
    places = jax.numpy.arange(ids.shape[1], dtype=jax.numpy.int32)[None]
    return nn.merge_params(graph, params).encoder.every_layer(ids, jax.numpy.ones_like(ids), places)[:, 0]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def model(request, tmp_path_factory):
    return with_extension(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def bert(tmp_path):
    return with_extension(tmp_path, "bert")[1]


def test_round_trip_is_bitwise(model, tmp_path):
    _, saved, config, params, tokenizer = model
    with checkpoints.listening() as heard:
        loaded = hf.load(str(saved))
    assert (loaded.config, loaded.notes, heard) == (config, [], [])
    assert_bitwise(loaded.params, params)
    assert [loaded.tokenizer(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert [loaded.tokenizer.get_vocab()[token] for token in NEW] == list(range(config.vocab_size, config.total_vocab))
    again = resave(loaded, tmp_path / "again")
    for name in ("model.safetensors", "extension.safetensors", "config.json"):
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_tensors_of_the_base_are_those_that_transformers_wrote(model):
    base, saved, config, _, _ = model
    assert_bitwise(load_file(saved / "model.safetensors"), load_file(base / "model.safetensors"))
    own = load_file(saved / "extension.safetensors")
    assert own["encoder/extension/word"].shape == (3, 24) and own["mlm_extension/bias"].shape == (3,)
    assert all(name.startswith(("encoder/extension/", "mlm_extension/")) for name in own)
    described = json.loads((saved / "config.json").read_text())
    assert described["model_type"] == "jaxplm-exbert" and described["base_model_type"] == config.model_type
    assert described["extension"] == dataclasses.asdict(config.extension)
    assert described["vocab_size"] == config.total_vocab


@pytest.mark.slow
def test_load_gives_the_model_with_its_whole_vocabulary(model):
    _, saved, config, params, _ = model
    found, tokenizer = jaxplm.load(str(saved))
    assert isinstance(found, nn.MaskedLM)
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    assert (batch["input_ids"] >= config.vocab_size).any()
    logits = found.mlm_logits(batch["input_ids"], batch["attention_mask"])
    assert logits.shape == (*batch["input_ids"].shape, config.total_vocab) and np.isfinite(logits).all()
    graph, _ = nn.abstract_model(config)
    expected = nn.merge_params(graph, jax.tree.map(jax.numpy.asarray, params)).mlm_logits(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.slow
def test_stock_transformers_refuses_the_model_and_loads_the_tokenizer(model):
    _, saved, config, _, tokenizer = model
    for auto in (transformers.AutoModel, transformers.AutoModelForMaskedLM, transformers.AutoConfig):
        with pytest.raises(ValueError, match="jaxplm-exbert"):
            auto.from_pretrained(saved)
    with pytest.raises(RuntimeError, match="size mismatch|mismatched"), checkpoints.listening():
        getattr(transformers, "BertForMaskedLM" if config.model_type == "bert" else "RobertaForMaskedLM").from_pretrained(saved)
    with checkpoints.listening() as heard:
        stock = transformers.AutoTokenizer.from_pretrained(saved)
    assert all("jaxplm-exbert" in message for message in heard)
    assert [stock(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]


def test_the_card_says_who_loads_it(model, tmp_path):
    card = (model[1] / "README.md").read_text()
    assert card.startswith("# A card\n\n## Loading\n") and "`jaxplm.load` loads it" in card and "refuses" in card
    bare = resave(hf.load(str(model[1])), tmp_path / "bare")
    assert (bare / "README.md").read_text().startswith("## Loading\n")


def test_damage_and_mistakes(bert):
    (bert / "extension.safetensors").rename(bert / "aside")
    assert_says(refused(bert), "encoder/extension/word")
    (bert / "aside").rename(bert / "extension.safetensors")
    rewrite(bert, lambda tensors: {name: leaf for name, leaf in tensors.items() if "layer.1.output" not in name})
    assert "bert.encoder.layer.1.output" in refused(bert)


@pytest.mark.parametrize("extension", ["absent", {}, [], {"tokens": 3, "width": 12, "heads": 5, "ffn_width": 16, "gate_bias": 5.0},
                                       {"tokens": 3, "width": 12, "heads": 3, "ffn_width": "16", "gate_bias": 5.0},
                                       {"tokens": 9999, "width": 12, "heads": 3, "ffn_width": 16, "gate_bias": 5.0}])
def test_a_config_that_describes_no_extension(bert, extension):
    assert_says(refused(reconfigure(bert, extension=extension)), "config.json", "extension")


def test_a_tokenizer_of_another_model(bert):
    described = json.loads((bert / "config.json").read_text())
    base = described["vocab_size"] - 3
    rewrite(bert, lambda tensors: {name: leaf[: base - 1] if leaf.shape[:1] == (base,) else leaf for name, leaf in tensors.items()})
    assert_says(refused(reconfigure(bert, vocab_size=base + 2)), "tokenizer", "model")


# ---------------------------------------------------------------- tasks

HEADS = [KINDS["classify"].head_config(3), KINDS["tag"].head_config(3, layers="mix"), KINDS["qa"].head_config(2)]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS, ids=[head.kind for head in HEADS])
def test_a_fine_tuned_model_is_loaded_again(model, tmp_path, head):
    begun = hf.load_task_model(str(model[1]), KINDS, head, seed=1)
    assert begun.config == dataclasses.replace(model[2], pooler=False)
    assert_bitwise(begun.params["encoder"], model[3]["encoder"])
    labels = () if head.kind == "qa" else ("one", "two", "three")
    saved = hf.save_task_model(tmp_path / "task", begun, begun.params, labels)
    assert (saved / "jaxplm.json").is_file() and hf.has_task_head(str(saved))
    assert "jaxplm.load" in (saved / "README.md").read_text()
    loaded = hf.load_task_model(str(saved), KINDS)
    assert (loaded.config, loaded.head, loaded.labels, loaded.notes) == (begun.config, begun.head, labels, [])
    assert_bitwise(loaded.params, begun.params)

    found, tokenizer = jaxplm.load(str(saved))
    assert isinstance(found, nn.TaskModel)
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    logits = found.logits(batch["input_ids"], batch["attention_mask"])
    graph, _ = nn.abstract_task_model(begun.config, begun.head, labels)
    expected = nnx.merge(graph, begun.params).logits(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_array_equal(logits, expected)
    with pytest.raises(ValueError, match="jaxplm-exbert"):
        transformers.AutoModel.from_pretrained(saved)

    masked = hf.load(str(saved))  # the encoder again, as `embed` takes it
    [note] = masked.notes
    assert_says(note, str(saved), "MLM head", "random")
    assert_bitwise(masked.params["encoder"], begun.params["encoder"])
    assert not masked.params["mlm_extension"]["bias"].any()
    with refuses("head"):
        hf.load_task_model(str(model[1]), KINDS)


@pytest.mark.slow
def test_embeddings_of_every_layer(model):
    _, saved, config, params, tokenizer = model
    graph, _ = nn.abstract_model(config)
    for layers, index in (("last", 2), (0, 0)):
        found = jaxplm.embed(TEXTS, str(saved), layers=layers, compute="float32", batch_size=8)
        for text, vector in zip(TEXTS, found, strict=True):
            every = every_layer(graph, params, np.array([tokenizer(text)["input_ids"]], np.int32))
            np.testing.assert_allclose(vector, np.asarray(every)[index].mean(0), atol=1e-4)


@pytest.mark.slow
def test_reinitialised_layers_are_those_of_the_extension_too(model):
    _, _, config, params, _ = model
    found = paths.named(reinitialised(params, config, 1, seed=3))
    for name, old in paths.named(params).items():
        if paths.stack_of(name):
            np.testing.assert_array_equal(found[name][:1], old[:1])
    assert not np.array_equal(found[UP], paths.named(params)[UP])
    assert found["encoder/extension/blocks/gate/bias"][1] == np.float32(config.extension.gate_bias / GATE_SCALE)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [(), ("encoder",)], ids=["tuned", "frozen"])
def test_a_task_is_trained_on_it(model, tmp_path, freeze):
    rows = [{"text": text, "label": "many" if len(text) > 20 else "few"} for text in TEXTS * 6]
    for name, part in (("train.jsonl", rows), ("dev.jsonl", rows[:6])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    data = Data(train=str(tmp_path / "train.jsonl"), validation=str(tmp_path / "dev.jsonl"), seq_len=24)
    config = Config(recipe="finetune", model=Model(path=str(model[1])), data=data, task=Task(kind="classify"),
                    train=Train(steps=2, batch_size=8, learning_rate=1e-2, warmup=0, freeze=freeze))
    config.compute.dtype, config.compute.unroll = "float32", False
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    compute = resolve_compute(config.compute, mesh)
    make_job = functools.partial(build_job, vectors=tmp_path / "vectors")
    run = engine_loop.Run(prepare(config, tmp_path, make_job, mesh=mesh, compute=compute), tmp_path, "")
    assert isinstance(run.job.train.batch(0), FeatureBatch) == bool(freeze)
    state = run.setup.first_state(run.job.params)
    before = jax.tree.map(np.array, state.params)
    for step in range(2):
        state, metrics = run.setup.train_step(state, run.device_batch(step))
        assert float(metrics["nonfinite"]) == 0
    assert not same(before["head"], state.params["head"])
    if not freeze:
        moved, old = paths.named(state.params), paths.named(before)
        assert all(not np.array_equal(old[name], np.asarray(moved[name])) for name in old if name.startswith("encoder/extension/"))
    assert 0 <= run.job.evaluate(state.params)["validation"]["accuracy"] <= 1
