"""Mistakes of the user: each ends the real command with status 2 and one line on stderr that names it."""

import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoints import reconfigure
from commands import Lab, fields
from forked import MAIN, Outcome, run_all
from messages import assert_refusal

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Mistake:
    """Flags after those of the good run, and what the one line must name."""

    flags: Callable[[Lab, Path], list[str]]
    says: tuple[str, ...]
    config: str = "configs/dapt.py"


def flags(**values) -> Callable[[Lab, Path], list[str]]:
    return lambda lab, here: fields(**values)


def data(name: str, content: bytes) -> Callable[[Lab, Path], list[str]]:
    """The training data is a file of this content."""
    def make(lab: Lab, here: Path) -> list[str]:
        (here / name).write_bytes(content)
        return fields(data__train=here / name)
    return make


def checkpoint(change: Callable[[Path], object]) -> Callable[[Lab, Path], list[str]]:
    """The model is a copy of the good one with a change."""
    def make(lab: Lab, here: Path) -> list[str]:
        shutil.copytree(lab.model, here / "model")
        change(here / "model")
        return fields(model__path=here / "model")
    return make


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def cut(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


def train_is_test(lab: Lab, here: Path) -> list[str]:
    shutil.copy(lab.corpus, here / "copy.txt")
    return fields(data__test=here / "copy.txt")


def missing_file(lab: Lab, here: Path) -> list[str]:
    return fields(data__train=lab.corpus.with_name("corpsu.txt"))


def workdir_is_a_file(lab: Lab, here: Path) -> list[str]:
    (here / "taken").write_text("")
    return [f"--workdir={here / 'taken'}"]


def config_file(content: str) -> Callable[[Lab, Path], list[str]]:
    def make(lab: Lab, here: Path) -> list[str]:
        (here / CONFIG).write_text(content)
        return []
    return make


CONFIG = "mine.py"  # used instead of configs/dapt.py where a mistake writes it


MISTAKES = {
    "unknown field": Mistake(flags(trian__steps=3), ("trian.steps", "train.steps")),
    "unknown leaf": Mistake(flags(train__batchsize=3), ("train.batchsize", "train.batch_size")),
    "unknown flag": Mistake(lambda lab, here: ["--wrokdir=x"], ("wrokdir", "workdir")),
    "a word too many": Mistake(lambda lab, here: ["train"], ("'train'", "flag")),
    "wrong type": Mistake(flags(train__steps="many"), ("train.steps", "many")),
    "impossible value": Mistake(flags(data__mask_rate=1.5), ("data.mask_rate=1.5", "0.01", "0.9")),
    "steps and epochs": Mistake(flags(train__epochs=2), ("train.steps", "train.epochs")),
    "freeze without a match": Mistake(
        flags(train__freeze="('enconder/',)"), ("train.freeze='enconder/'", "encoder/blocks")),
    "config file that is not there": Mistake(
        flags(), ("--config=configs/dpat.py", "configs/dapt.py"), config="configs/dpat.py"),
    "two config files": Mistake(
        lambda lab, here: ["--config=configs/tapt.py"], ("--config", "configs/dapt.py", "configs/tapt.py")),
    "config file that is not Python": Mistake(
        config_file("x = 1\ndef get_config(:"), (CONFIG, "SyntaxError", "line 2")),
    "config file that fails": Mistake(
        config_file("from jaxplm.config import Config, Train\n\ndef get_config():\n    return Config(train=Train(stepz=3))"),
        (CONFIG, "TypeError", "line 4", "'stepz'")),
    "config file without get_config": Mistake(config_file("x = 1"), (CONFIG, "get_config()")),
    "config file that returns something else": Mistake(
        config_file("def get_config(): return {}"), (CONFIG, "jaxplm.config.Config", "dict")),
    "a recipe of no name": Mistake(
        config_file("from jaxplm.config import Config\ndef get_config(): return Config(recipe='dap')"),
        ("recipe='dap'", "dapt")),
    "missing data": Mistake(missing_file, ("corpsu.txt", "corpus.txt")),
    "empty corpus": Mistake(data("empty.txt", b"\n \n\n"), ("empty.txt",)),
    "a pickle as data": Mistake(data("data.pkl", pickle.dumps(["a text"])), ("data.pkl",)),
    "a pickle in disguise": Mistake(data("data.parquet", pickle.dumps(["a text"])), ("data.parquet",)),
    "a format of no kind": Mistake(data("data.xyz", b"a text"), ("data.xyz", ".txt")),
    "a pickle as model": Mistake(checkpoint(pickled), ("model", "pickle", "python -c")),
    "another architecture": Mistake(
        checkpoint(lambda model: reconfigure(model, model_type="gpt2")), ("model_type", "'gpt2'")),
    "weights of another model": Mistake(
        checkpoint(lambda model: reconfigure(model, num_hidden_layers=3)),
        ("weights", "bert", "16 missing", "bert.encoder.layer.2.")),
    "a damaged model": Mistake(checkpoint(cut), ("model.safetensors", "damaged")),
    "a model that is not there": Mistake(flags(model__path="./no/such/model"), ("./no/such/model",)),
    "a hub name without a hub": Mistake(
        flags(model__path="someone/some-model"), ("someone/some-model", "hub", "reached")),
    "a data set of the hub without a hub": Mistake(flags(data__train="hf:some-texts"), ("some-texts",)),
    "seq_len over the positions": Mistake(flags(data__seq_len=64), ("data.seq_len=64", "40 positions")),
    "a mesh that does not divide": Mistake(flags(mesh__fsdp=2), ("mesh.data=-1", "mesh.fsdp=2", "1")),
    "an accumulation that does not divide": Mistake(
        flags(train__accumulate=3), ("train.batch_size=8", "train.accumulate=3")),
    "training on the test set": Mistake(train_is_test, ("corpus.txt", "data.train", "data.test")),
    "a workdir that is a file": Mistake(workdir_is_a_file, ("workdir", "taken")),
}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What is left of the commands of the selected tests."""
    names = [item.callspec.params["name"] for item in request.session.items  # pyright: ignore[reportAttributeAccessIssue]
             if getattr(item, "function", None) is test_one_line_and_status_2]
    commands = []
    for name in names:
        here = tmp_path_factory.mktemp("mistake")
        more = MISTAKES[name].flags(lab, here)
        config = here / CONFIG if (here / CONFIG).exists() else MISTAKES[name].config
        commands.append(lab.training(here / "run", *more, config=config))
    return dict(zip(names, run_all(lab, commands), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_and_status_2(name, outcomes):
    done = outcomes[name]
    assert done.status == 2, f"{done.status}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.out
    assert_refusal(done.err, *MISTAKES[name].says)


def assert_one_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    """Assert that a command was refused."""
    assert done.returncode == 2, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout
    assert_refusal(done.stderr, *says)


def test_no_config_at_all(lab):
    assert_one_line(lab.run([], alone=True), "--config", "--config=dapt")


def test_a_batch_that_does_not_divide(lab, tmp_path):
    two_devices = "import jax; jax.config.update('jax_num_cpu_devices', 2)"
    done = lab.run(lab.training(tmp_path, *fields(train__batch_size=9)), code=two_devices + MAIN)
    assert_one_line(done, "train.batch_size=9", "2")


# What a full disk looks like to a program that may not fill one: no byte is free, for whoever asks.
FULL = """
import shutil
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0)
"""


def test_no_disk_space(lab, tmp_path):
    done = lab.run(lab.training(tmp_path / "run"), code=FULL + MAIN)
    assert_one_line(done, "checkpoint", "0.0 MB", "free")
    assert re.search(r"\b67\.\d MB", done.stderr), done.stderr


def test_a_config_json_that_is_not_json(lab, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert_one_line(lab.train(tmp_path), str(tmp_path / "config.json"), "damaged", "JSON")
