"""Writing a model directory: the content of config.json, and what happens if the disk is full or not writable."""

import errno
import json
import socket

import checkpoints
import jax
import ml_dtypes
import numpy as np
import pytest
import transformers
from checkpoints import reconfigure, resave
from messages import refuses
from safetensors.numpy import load_file

from jaxplm import hf, nn
from jaxplm.hf.families import family_of


@pytest.fixture
def bert(tmp_path):
    return checkpoints.save(tmp_path / "bert", "bert")


def test_config_of_an_export(bert, tmp_path):
    reconfigure(bert, id2label={"0": "a"}, _name_or_path="/home/me", torch_dtype="float16",
                hidden_dropout_prob=0.2, my_field=1)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "klue"])
def test_export_from_scratch(name, tmp_path):
    """Without a config.json to start from, ours and the tokenizer give everything."""
    tokenizer = checkpoints.tokenizer(name)
    family = family_of("bert" if name == "bert" else "roberta")
    config = family.encoder_config(tokenizer.pad_token_id, vocab_size=len(tokenizer), width=12, layers=1, heads=2, ffn_width=20,
                                   max_positions=16, norm_eps=1e-12)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), nn.abstract_model(config)[1])
    export = hf.save(tmp_path / "export", config, params, tokenizer, {})
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
    (target.parent / f".export.{socket.gethostname()}.partial" / "new").mkdir(parents=True)  # of a run that was killed
    resave(loaded, target)
    assert [entry.name for entry in target.parent.iterdir()] == ["export"]
    assert not (target / "old.txt").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_failed_export_keeps_the_old_one(code, bert, tmp_path, monkeypatch):
    loaded = hf.load(str(bert))
    target = resave(loaded, tmp_path / "export")
    before = (target / "model.safetensors").read_bytes()

    def full(*_):
        raise OSError(code, "no space")

    monkeypatch.setattr("jaxplm.hf.export.save_tokenizer", full)
    with refuses("export", "MiB"):
        resave(loaded, target)
    assert (target / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".export*"))


def test_missing_space_is_found_before_writing(bert, tmp_path, monkeypatch):
    loaded = hf.load(str(bert))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with refuses("export", "MiB"):
        resave(loaded, tmp_path / "export")
    assert not list(tmp_path.glob("*export*"))


def test_target_under_a_file(bert, tmp_path):
    (tmp_path / "file").write_text("")
    with refuses("export"):
        resave(hf.load(str(bert)), tmp_path / "file" / "export")


def test_values_that_a_dtype_cannot_hold(bert, tmp_path):
    loaded = hf.load(str(bert))
    leaf = loaded.params["mlm_head"]["bias"]
    leaf[3] = 1e6
    with refuses("float16", "cls.predictions.bias"):
        resave(loaded, tmp_path / "export", dtype="float16")
    resave(loaded, tmp_path / "export", dtype="bfloat16")
    stored = load_file(tmp_path / "export" / "model.safetensors")
    assert stored["cls.predictions.bias"].dtype == ml_dtypes.bfloat16
    leaf[3] = np.inf
    with refuses("finite", error=ValueError):
        resave(loaded, tmp_path / "export")
    with refuses("float8", error=ValueError):
        resave(loaded, tmp_path / "export", dtype="float8")


def test_every_file_can_be_read_by_others_as_the_directory_can(bert, tmp_path):
    loaded = hf.load(str(bert))
    exported = hf.save(tmp_path / "export", loaded.config, loaded.params, loaded.tokenizer, loaded.hf_config)
    modes = {file.name: file.stat().st_mode & 0o777 for file in exported.iterdir()}
    assert set(modes.values()) == {exported.stat().st_mode & 0o666}, modes
