"""Models in transformers' format: in, out, and in again; and everything that can be wrong with one."""

import errno
import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import checkpoints
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from jaxplm import hf, nn
from jaxplm.errors import UserError
from jaxplm.hf.names import leaf_of, slots


def flat(tree, prefix=""):
    """{path: leaf} of nested dicts."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {path: leaf for key, value in tree.items() for path, leaf in flat(value, f"{prefix}/{key}").items()}


def assert_bitwise(found, expected):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert found[path].tobytes() == leaf.tobytes(), path


def resave(loaded, directory, **options):
    return hf.save(directory, loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config, **options)


def rewrite(directory, change):
    """Let `change` edit the dict of tensors of a checkpoint."""
    tensors = load_file(directory / "model.safetensors")
    save_file(change(tensors) or tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def reconfigure(directory, **fields):
    file = directory / "config.json"
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
    return directory


def refused(directory) -> str:
    """The one line that loading a directory ends with."""
    with pytest.raises(UserError) as caught:
        hf.load(str(directory))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def bert(tmp_path):
    return checkpoints.save(tmp_path / "bert", "bert")


@pytest.fixture(scope="module", params=checkpoints.FAMILIES)
def family(request, tmp_path_factory):
    """(name, its checkpoint)."""
    directory = tmp_path_factory.mktemp("families") / request.param
    return request.param, checkpoints.save(directory, request.param)


# --- in and out ------------------------------------------------------------------------------------------------


def test_table_covers_every_number_once():
    config = nn.EncoderConfig("bert", vocab_size=131, width=12, layers=2, heads=3, ffn_width=10, max_positions=9,
                              pooler=True)
    shapes = nn.graph_of(config)[1]
    count = {path: np.zeros(leaf.shape, int) for path, leaf in flat(shapes).items()}
    for slot in slots(config, shapes):
        count["/" + slot.path][slot.index] += 1
    for path, times in count.items():
        rows = slice(131 if path.endswith(("/word", "mlm_head/bias")) else None)
        assert (times[rows] == 1).all(), path
        assert times.sum() == times[rows].size, path


def test_round_trip_is_bitwise_and_stock_loads_in_silence(family, tmp_path, capfd):
    name, source = family
    first = hf.load(str(source))
    export = resave(first, tmp_path / "export")
    assert first.notes == []
    second = hf.load(str(export))
    assert (second.config, second.notes) == (first.config, [])
    assert_bitwise(second.params, first.params)
    stored, original = load_file(export / "model.safetensors"), load_file(source / "model.safetensors")
    assert_bitwise(stored, original)  # so no decoder of its own either

    capfd.readouterr()
    with checkpoints.listening() as heard, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(export)
    assert heard == []
    assert warned == []
    assert not any(report.values()), report
    assert type(model).__name__ == type(checkpoints.model(name)).__name__
    assert type(tokenizer) is type(first.tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == first.tokenizer.backend_tokenizer.to_str()
    answers = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)(f"the {tokenizer.mask_token} dog")
    assert len(answers) == 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_round_trip(dtype, tmp_path):
    made = checkpoints.model("roberta").to(getattr(torch, dtype))
    source = checkpoints.save(tmp_path / "source", "roberta", made)
    loaded = hf.load(str(source))
    assert {leaf.dtype for leaf in flat(loaded.params).values()} == {np.dtype(np.float32)}
    export = resave(loaded, tmp_path / "export", dtype=dtype)
    assert_bitwise(load_file(export / "model.safetensors"), load_file(source / "model.safetensors"))
    assert json.loads((export / "config.json").read_text())["dtype"] == dtype


def test_shards(bert, tmp_path):
    whole = hf.load(str(bert))
    model = transformers.BertForMaskedLM.from_pretrained(bert)
    sharded = checkpoints.save(tmp_path / "sharded", "bert", model, max_shard_size="20KB")
    parts = sorted(sharded.glob("model-*.safetensors"))
    assert len(parts) > 2
    assert_bitwise(hf.load(str(sharded)).params, whole.params)

    parts[1].rename(tmp_path / "elsewhere")
    assert "1 of" in refused(sharded)
    assert parts[1].name in refused(sharded)
    save_file({"other": np.zeros(1, np.float32)}, parts[1])
    assert "index.json promises" in refused(sharded)
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere"}}))
    assert "outside" in refused(sharded)
    index.write_text("[]")
    assert "not an index" in refused(sharded)


def test_vocabulary_padding_is_zero(bert):
    loaded = hf.load(str(bert))
    assert loaded.params["encoder"]["embeddings"]["word"].shape[0] == loaded.config.padded_vocab == 512
    assert not loaded.params["encoder"]["embeddings"]["word"][403:].any()
    assert not loaded.params["mlm_head"]["bias"][403:].any()


def test_pooler_is_kept_beside_the_masked_lm(tmp_path):
    made = checkpoints.model("bert", head="ForPreTraining")
    loaded = hf.load(str(checkpoints.save(tmp_path / "source", "bert", made)))
    assert loaded.config.pooler
    assert [note for note in loaded.notes if "cls.seq_relationship" in note] == loaded.notes
    np.testing.assert_array_equal(loaded.params["pooler"]["kernel"], made.bert.pooler.dense.weight.detach().numpy().T)

    export = resave(loaded, tmp_path / "export")
    with checkpoints.listening() as heard:
        _, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert heard == []
    assert not any(report.values())
    again = hf.load(str(export))
    assert again.config == loaded.config
    assert_bitwise(again.params, loaded.params)


def test_no_token_types(bert, tmp_path):
    """A checkpoint without the table: ours has none; the export computes the same in stock transformers."""
    name = "bert.embeddings.token_type_embeddings.weight"
    rewrite(bert, lambda tensors: tensors.pop(name) is None)
    loaded = hf.load(str(bert))
    assert loaded.config.token_types == 0
    assert "token_type" not in loaded.params["encoder"]["embeddings"]
    assert ["no token-type table" in note for note in loaded.notes] == [True]
    export = resave(loaded, tmp_path / "export")
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert not any(report.values())
    ids = np.arange(5, 21, dtype=np.int32)[None]
    with torch.no_grad():
        expected = model(torch.tensor(ids).long()).logits.numpy()
    module = nn.module_with(nn.graph_of(loaded.config)[0], loaded.params)
    np.testing.assert_allclose(np.asarray(module.mlm_logits(ids)), expected, rtol=0, atol=1e-4)


# --- other ways to write the same checkpoint -------------------------------------------------------------------


def test_encoder_without_prefix_or_head(tmp_path):
    made = checkpoints.model("bert", head="Model")
    source = checkpoints.save(tmp_path / "encoder", "bert", made)
    assert "embeddings.word_embeddings.weight" in load_file(source / "model.safetensors")
    loaded = hf.load(str(source), seed=3)
    assert loaded.config.pooler
    assert len(loaded.notes) == 1
    assert "no MLM head" in loaded.notes[0]
    head = loaded.params["mlm_head"]
    assert 0.7 < head["dense"]["kernel"].std() / loaded.config.init_std < 1.3
    assert (head["norm"]["scale"] == 1).all()
    assert not any(leaf.any() for leaf in (head["dense"]["bias"], head["norm"]["bias"], head["bias"]))
    assert_bitwise(hf.load(str(source), seed=3).params, loaded.params)
    assert not np.array_equal(hf.load(str(source), seed=4).params["mlm_head"]["dense"]["kernel"], head["dense"]["kernel"])


def test_old_names_buffers_and_other_heads(bert):
    expected = hf.load(str(bert))

    def age(tensors):
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
               for name, tensor in tensors.items()}
        old["bert.embeddings.position_ids"] = np.arange(30)[None]
        old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
        old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
        old["classifier.weight"] = np.zeros((2, 24), np.float32)
        old["classifier.bias"] = np.zeros(2, np.float32)
        return old

    loaded = hf.load(str(rewrite(bert, age)))
    assert_bitwise(loaded.params, expected.params)
    assert len(loaded.notes) == 1
    assert loaded.notes[0].endswith("head of another task: classifier")


def test_decoder_that_differs_from_the_table(bert):
    def untie(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 1

    expected = hf.load(str(bert))
    loaded = hf.load(str(rewrite(bert, untie)))
    assert_bitwise(loaded.params, expected.params)
    assert ["differs" in note for note in loaded.notes] == [True]
    assert "decoder of its own is not supported" in refused(reconfigure(bert, tie_word_embeddings=False))


# --- what does not fit -----------------------------------------------------------------------------------------


def test_everything_wrong_is_said_at_once(bert):
    def damage(tensors):
        for layer in (0, 1):
            for part in ("query", "key", "value", "query"):
                tensors.pop(f"bert.encoder.layer.{layer}.attention.self.{part}.weight", None)
                tensors.pop(f"bert.encoder.layer.{layer}.attention.self.{part}.bias", None)
        tensors["bert.encoder.layer.2.output.dense.weight"] = np.zeros((24, 40), np.float32)
        tensors["bert.encoder.layer.1.output.dense.bias"] = np.zeros(25, np.float32)
        tensors["bert.encoder.layer.0.output.dense.bias"] = np.zeros(24, np.int8)

    message = refused(rewrite(bert, damage))
    assert "12 missing: bert.encoder.layer.0.attention.self.query.weight" in message
    assert "and 6 more" in message
    assert "1 not known: bert.encoder.layer.2.output.dense.weight" in message
    assert "1 of another shape: bert.encoder.layer.1.output.dense.bias is [25], not [24]" in message
    assert "1 not in floating point: bert.encoder.layer.0.output.dense.bias" in message


def test_same_tensor_under_two_names(bert):
    def double(tensors):
        tensors["embeddings.word_embeddings.weight"] = tensors["bert.embeddings.word_embeddings.weight"]

    assert "two names" in refused(rewrite(bert, double))


def test_weights_of_another_family(bert):
    message = refused(reconfigure(bert, model_type="roberta"))
    assert "not those of the roberta in config.json" in message
    assert "missing: roberta.embeddings.word_embeddings.weight" in message


@pytest.mark.parametrize(("fields", "words"), [
    ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
    ({"model_type": "modernbert"}, "model_type 'modernbert' is not supported"),
    ({"model_type": "absent"}, 'no "model_type"'),
    ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'"),
    ({"hidden_act": "relu"}, "hidden_act 'relu'"),
    ({"position_embedding_type": "relative_key", "is_decoder": True}, "'relative_key' (only 'absolute' is); is_decoder"),
    ({"add_cross_attention": True}, "add_cross_attention"),
    ({"quantization_config": {"bits": 8}}, "quantization_config"),
    ({"auto_map": {"AutoModel": "modeling.Mine"}}, "never run"),
    ({"num_attention_heads": 5}, "not a multiple"),
    ({"num_attention_heads": "absent", "hidden_size": "24"}, "hidden_size is '24', no num_attention_heads"),
])
def test_unsupported_architecture(bert, fields, words):
    assert words in refused(reconfigure(bert, **fields))


def test_positions_that_the_offset_uses_up(tmp_path):
    source = checkpoints.save(tmp_path / "roberta", "roberta")
    assert "leaves no position" in refused(reconfigure(source, max_position_embeddings=2))


def test_damaged_files(bert):
    weights = bert / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-100])
    assert "model.safetensors is damaged" in refused(bert)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(bert)
    weights.write_bytes(good)

    def spoil(tensors):
        tensors["cls.predictions.bias"][7] = np.nan

    assert "cls.predictions.bias has values that are not finite" in refused(rewrite(bert, spoil))
    (bert / "config.json").write_text("{")
    assert "not JSON" in refused(bert)
    (bert / "config.json").write_text("[]")
    assert "object" in refused(bert)
    (bert / "config.json").unlink()
    assert "no config.json" in refused(bert)


def test_no_weights(bert):
    weights = bert / "model.safetensors"
    weights.rename(bert / "weights.safetensors")
    assert "rename weights.safetensors" in refused(bert)
    (bert / "weights.safetensors").rename(bert / "tf_model.h5")
    assert "only tf_model.h5" in refused(bert)
    (bert / "tf_model.h5").unlink()
    assert "has no weights" in refused(bert)


@pytest.mark.parametrize("shards", [1, 2])
def test_pickle_is_refused_with_a_command_that_converts_it(shards, tmp_path):
    bert = checkpoints.save(tmp_path / "my bert", "bert")
    expected = hf.load(str(bert))
    state = checkpoints.model("bert").state_dict()  # with the tied decoder, as pickles have it
    (bert / "model.safetensors").unlink()
    names = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-{i + 1:05}-of-00002.bin" for i in range(shards)]
    for i, name in enumerate(names):
        torch.save(dict(list(state.items())[i::shards]), bert / name)
    message = refused(bert)
    assert "never opened" in message
    command = shlex.split(message[message.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=120)
    loaded = hf.load(str(bert))
    assert_bitwise(loaded.params, expected.params)
    assert loaded.notes == []


# --- writing ---------------------------------------------------------------------------------------------------


def test_config_of_an_export(bert, tmp_path):
    reconfigure(bert, id2label={"0": "a"}, _name_or_path="/home/me", torch_dtype="float16", hidden_dropout_prob=0.2,
                my_field=1)
    loaded = hf.load(str(bert))
    assert loaded.config.dropout == 0.2
    config = nn.EncoderConfig(**{**loaded.config.__dict__, "dropout": 0.0})
    export = hf.save(tmp_path / "export", config, loaded.params, loaded.tokenizer, loaded.hf_config,
                     files={"README.md": "card\n"})
    written = json.loads((export / "config.json").read_text())
    assert not {"id2label", "_name_or_path", "torch_dtype"} & written.keys()
    assert (written["my_field"], written["hidden_dropout_prob"], written["dtype"]) == (1, 0.2, "float32")
    assert written["architectures"] == ["BertForMaskedLM"]
    assert (export / "README.md").read_text() == "card\n"


@pytest.mark.parametrize("name", ["bert", "klue"])
def test_export_from_scratch(name, tmp_path):
    """No config.json to begin with: ours and the tokenizer tell everything."""
    tokenizer = checkpoints.tokenizer(name)
    kind = "bert" if name == "bert" else "roberta"
    config = nn.EncoderConfig(kind, len(tokenizer), width=12, layers=1, heads=2, ffn_width=20, max_positions=16,
                              pad_id=tokenizer.pad_token_id, token_types=2 if name == "bert" else 1,
                              position_offset=0 if name == "bert" else tokenizer.pad_token_id + 1)
    export = hf.save(tmp_path / "export", config, nn.random_params(config, 0), tokenizer, {})
    with checkpoints.listening() as heard:
        model, report = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
    assert heard == []
    assert not any(report.values())
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert hf.load(str(export)).config == config


def test_export_replaces_and_leaves_nothing_behind(bert, tmp_path):
    loaded = hf.load(str(bert))
    target = tmp_path / "out" / "export"
    resave(loaded, target, files={"old.txt": "old"})
    (target.parent / ".export.partial" / "export").mkdir(parents=True)  # of a run that was killed
    resave(loaded, target)
    assert [entry.name for entry in target.parent.iterdir()] == ["export"]
    assert not (target / "old.txt").exists()


def test_failed_export_keeps_the_old_one(bert, tmp_path, monkeypatch):
    loaded = hf.load(str(bert))
    target = resave(loaded, tmp_path / "export")
    before = (target / "model.safetensors").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("jaxplm.hf.export.save_tokenizer", full)
    with pytest.raises(UserError, match=r"no disk space for the export .*export: it needs .* MiB"):
        resave(loaded, target)
    assert (target / "model.safetensors").read_bytes() == before
    assert not (tmp_path / ".export.partial").exists()


def test_no_room_is_noticed_before_writing(bert, tmp_path, monkeypatch):
    loaded = hf.load(str(bert))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="no disk space"):
        resave(loaded, tmp_path / "export")
    assert not list(tmp_path.glob("*export*"))


def test_target_under_a_file(bert, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the export"):
        resave(hf.load(str(bert)), tmp_path / "file" / "export")


def test_values_that_a_dtype_cannot_hold(bert, tmp_path):
    loaded = hf.load(str(bert))
    leaf = loaded.params["mlm_head"]["bias"]
    leaf[3] = 1e6
    with pytest.raises(UserError, match="float16 cannot hold cls.predictions.bias, which reaches 1e"):
        resave(loaded, tmp_path / "export", dtype="float16")
    resave(loaded, tmp_path / "export", dtype="bfloat16")
    assert load_file(tmp_path / "export" / "model.safetensors")["cls.predictions.bias"].dtype == ml_dtypes.bfloat16
    leaf[3] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        resave(loaded, tmp_path / "export")
    with pytest.raises(ValueError, match="float8"):
        resave(loaded, tmp_path / "export", dtype="float8")


def test_leaf_of():
    assert leaf_of({"a": {"b": 3}}, "a/b") == 3
