"""A whole comparison with real stages: its table, its costs, and the same table after a kill."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Lab, fields, rows
from task_runs import jsonl, texts

from jaxplm import main
from jaxplm.recipes.adapt import local
from jaxplm.reporting.comparison.comparison import Comparison
from jaxplm.reporting.comparison.stored import read_comparison
from jaxplm.scores.row_parts import score

pytestmark = pytest.mark.slow

STAGE = """
import runpy
runpy.run_module("jaxplm.recipes.adapt.stage", run_name="__main__", alter_sys=True)
"""


class Forked:
    """A stage in a process that is forked from one with all libraries; as much of `subprocess.Popen` as the engine needs."""

    def __init__(self, lab: Lab, workdir: Path, name: str) -> None:
        self._server, self._output = lab.server, workdir / f"{name.replace('/', '-')}.out"
        self.pid = lab.server.start([str(workdir), name], self._output, self._output.with_suffix(".err"), code=STAGE)
        self.returncode: int | None = None

    def poll(self) -> int:
        """Wait for the end of the process."""
        if self.returncode is None:
            self.returncode = self._server.wait(self.pid)
        return self.returncode

    def communicate(self) -> tuple[bytes, bytes]:
        return self._output.read_bytes(), b""

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def task(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data of a comparison."""
    here = tmp_path_factory.mktemp("task")
    for name, count, seed in (("train", 48, 0), ("dev", 16, 1), ("test", 16, 2)):
        jsonl(here / f"{name}.jsonl", texts(count, seed))
    return {"model__path": lab.model, "task__kind": "classify", "data__corpus": lab.corpus, "data__general": lab.general,
            "data__train": here / "train.jsonl", "data__validation": here / "dev.jsonl", "data__test": here / "test.jsonl",
            "data__seq_len": 32, "train__seeds": (1, 2), "train__metric": "macro_f1", "compute__dtype": "float32"}


CONFIG = """
from jaxplm.config import Adapt, Config


def get_config():
    return Config(recipe="adapt", adapt=Adapt(
        ways=("dapt",), learning_rates=(5e-3,), few_rows=(8,), few=("train.epochs=1",),
        dapt=("train.steps=20", "train.batch_size=8", "train.eval_every=5", "train.log_every=1", "checkpoint.every=2"),
        finetune=("train.steps=6", "train.batch_size=8", "train.eval_every=3")))
"""


def compared(lab: Lab, task: dict[str, Any], workdir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the comparison in this process, each stage in a forked one; return the stages that were started."""
    started: list[str] = []

    def start(workdir: Path, name: str, environment: dict[str, str]) -> Forked:
        del environment
        started.append(name)
        return Forked(lab, workdir, name)

    monkeypatch.setattr(local, "start_process", start)
    config_file = workdir.parent / "comparison.py"
    config_file.write_text(CONFIG)
    assert main.main(["jaxplm", f"--config={config_file}", f"--workdir={workdir}", *fields(**task)]) == 0
    return started


ALL = ["dapt", "finetune/dapt/final", "finetune/dapt/rows=8"]


@pytest.fixture(scope="module")
def whole(lab: Lab, task, tmp_path_factory) -> tuple[Path, Comparison]:
    """A comparison that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert compared(lab, task, workdir, patch) == ALL
    return workdir, read_comparison(workdir / "comparison.json")


def test_the_table_has_what_the_stages_measured(whole, task):
    workdir, found = whole
    [way] = found.ways
    assert (way.name, way.method, way.failure, way.learning_rate, found.complete) == ("dapt", "finetune", "", 5e-3, True)
    assert [run.seed for run in way.runs] == [1, 2]
    for run in way.runs:
        [tested] = [row for row in rows(workdir / f"stages/finetune/dapt/final/seed-{run.seed}") if row["split"] == "test"]
        assert run.test["macro_f1"] == tested["macro_f1"] and run.parts is not None
        assert score(run.parts)[0] == pytest.approx(tested["macro_f1"])
        assert [step for step, _ in run.curve] == [0, 3, 6]
    assert [count for count, _ in way.few] == [8] and len(way.few[0][1]) == 2
    assert way.preparation.tokens > 0 and way.training.tokens > 0
    assert way.preparation.flops > way.preparation.tokens and way.trained_parameters > 10_000
    assert [command.split()[1] for command in way.commands] == ["--config=dapt", "--config=finetune", "--config=finetune"]  # with few rows
    [encoder] = found.encoders
    assert encoder.name == "dapt" and encoder.domain and encoder.general and encoder.domain[1] < encoder.domain[0]
    assert found.vocabularies and found.vocabularies.names == ("corpus", "task", "general")
    assert (found.metric, found.train_rows, found.test_rows, found.few_rows) == ("macro_f1", 48, 16, (8,))
    assert "macro_f1" in (workdir / "report.md").read_text() and (workdir / "report.html").exists()


def comparable(found: Any, workdir: Path) -> Any:
    """Return a comparison as JSON without times, energy and the place of its workdir."""
    if isinstance(found, dict):
        return {name: comparable(value, workdir) for name, value in found.items() if name not in ("seconds", "joules")}
    if isinstance(found, list):
        return [comparable(value, workdir) for value in found]
    return found.replace(str(workdir), "WORKDIR") if isinstance(found, str) else found


def test_a_killed_stage_resumes_and_the_table_is_the_same(lab, whole, task, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:  # the plan, without a stage
        patch.setattr(local.LocalEngine, "run", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(AssertionError):
            compared(lab, task, workdir, patch)
    stage = Forked(lab, workdir, "dapt")
    metrics = workdir / "stages/dapt/metrics.jsonl"
    until = time.monotonic() + 120
    while not (metrics.exists() and '"step": 9,' in metrics.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    stage.kill()
    assert stage.poll() == -signal.SIGKILL and not (workdir / "stages/dapt/stage.json").exists()
    assert compared(lab, task, workdir, monkeypatch) == ALL
    assert "resuming from step" in (workdir / "stages/dapt/log.txt").read_text()
    here, there = (comparable(json.loads((one / "comparison.json").read_text()), one) for one in (workdir, whole[0]))
    here["comparison"].pop("command"), there["comparison"].pop("command")
    assert here == there
    before = (workdir / "comparison.json").read_bytes()
    assert compared(lab, task, workdir, monkeypatch) == [], "a stage that has ended does not run again"
    assert (workdir / "comparison.json").read_bytes() == before
