"""Finding a model: directories, built-in models, the hub and its cache."""

import types
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from messages import assert_says

from jaxplm.errors import UserError
from jaxplm.hf import resolve


def refused(path: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_directory(tmp_path, monkeypatch):
    assert resolve(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model") == tmp_path / "model"
    monkeypatch.chdir(tmp_path)
    assert resolve("model") == Path("model")  # a directory wins over a hub id


def test_not_a_directory(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.safetensors").write_bytes(b"")
    assert_says(refused(f"{tmp_path}/exports"), f"{tmp_path}/exports", f"{tmp_path}/export")
    assert_says(refused(f"{tmp_path}/export/model.safetensors"), f"{tmp_path}/export")
    assert_says(refused(f"{tmp_path}/nowhere/export"), f"{tmp_path}/nowhere/export", f"{tmp_path}/nowhere")
    assert "model" in refused("")


def test_builtin():
    message = refused("builtin:huge")
    assert_says(message, "huge", "tiny")


class Hub:
    """Stands in for the hub: a repository's file list, or what asking for it raises."""

    def __init__(self, monkeypatch, tmp_path, files=(), error=None, download_error=None):
        self.asked = {}

        def model_info(_, name, timeout):
            assert 0 < timeout < 30
            if error:
                raise error
            return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=file) for file in files])

        def snapshot_download(name, **options):
            self.asked = {"name": name, **options}
            if download_error:
                raise download_error
            return str(tmp_path)

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def http_error(kind):
    response = types.SimpleNamespace(headers={}, request=None, status_code=404)
    error = kind.__new__(kind)
    Exception.__init__(error, "no")
    error.response = response
    return error


def test_hub(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, tmp_path, ["model.safetensors", "pytorch_model.bin", "config.json"])
    assert resolve("klue/roberta-base") == tmp_path
    assert hub.asked["name"] == "klue/roberta-base"
    assert not hub.asked["local_files_only"]
    assert set(hub.asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.txt"}


def test_hub_pickle(monkeypatch, tmp_path):
    Hub(monkeypatch, tmp_path, ["pytorch_model.bin", "config.json"])
    message = refused("some/old-model")
    assert_says(message, "pickle", "hf download some/old-model --local-dir old-model && python -c")


def test_hub_refuses(monkeypatch, tmp_path):
    Hub(monkeypatch, tmp_path, error=http_error(RepositoryNotFoundError))
    assert_says(refused("robertabase"), "robertabase", "directory", "hub")
    Hub(monkeypatch, tmp_path, ["model.safetensors"], download_error=http_error(GatedRepoError))
    assert "gated" in refused("some/model")


def test_no_network(monkeypatch, tmp_path):
    absent = LocalEntryNotFoundError("not in the cache")
    hub = Hub(monkeypatch, tmp_path, error=TimeoutError(), download_error=absent)
    assert_says(refused("roberta-base"), "roberta-base", "reached")
    assert hub.asked["local_files_only"]
    hub = Hub(monkeypatch, tmp_path, error=TimeoutError())
    assert resolve("roberta-base") == tmp_path  # the cache has it
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("roberta-base") == tmp_path
    assert hub.asked["local_files_only"]


def test_no_space_in_the_cache(monkeypatch, tmp_path):
    Hub(monkeypatch, tmp_path, ["model.safetensors"], download_error=OSError(28, "No space left on device"))
    assert_says(refused("roberta-base"), "roberta-base", "space")
