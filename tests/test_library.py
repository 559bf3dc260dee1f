"""`jaxplm.run`: the same config, errors and files as the command's, the result as a dataclass, the process as it was."""

import json
import logging
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from commands import STEPS, rows, weights
from jax.experimental.compilation_cache import compilation_cache
from messages import assert_says, refuses

import jaxplm
from jaxplm import main
from jaxplm.config import Config, as_flag, flatten
from jaxplm.data.progress import ProgressBar
from jaxplm.devices.compilation_cache import keep_compiled
from jaxplm.engine.signals import StopRequest
from jaxplm.library.results import read_result
from jaxplm.library.running import set_fields
from jaxplm.reporting import console
from jaxplm.reporting.comparison.comparison import Comparison, Way
from jaxplm.reporting.comparison.stored import write_comparison

VALUES = [
    ("train.steps", 7, 7), ("train.steps", np.int64(7), 7), ("train.epochs", 2, 2.0), ("train.learning_rate", np.float32(0.5), 0.5),
    ("data.whole_word", True, True), ("data.max_rows", None, None), ("model.dropout", None, None), ("model.dropout", 0, 0.0),
    ("train.seeds", [1, 2], (1, 2)), ("train.seeds", np.array([3]), (3,)), ("train.seeds", (), ()), ("embed.mix", [1, 0.5], (1, 0.5)),
    ("train.freeze", ["a b", "it's,"], ("a b", "it's,")), ("model.path", PurePosixPath("runs/a"), "runs/a"),
    ("data.train", " a'b\n\"$HOME\" ", " a'b\n\"$HOME\" "), ("data.label", "", ""), ("data.label", "None", "None"),
]


@pytest.mark.parametrize(("name", "given", "value"), VALUES)
def test_a_value_is_that_of_the_flag_that_the_command_has(name, given, value):
    config = main.load_config(main.find_config("finetune"))
    assert set_fields(config, {name: given}) == {name: value}
    by_flag = main.parse(["jaxplm", "--config=finetune", as_flag(name, value)])
    assert by_flag.given == {name}
    assert list(map(repr, flatten(config))) == list(map(repr, flatten(by_flag.config)))


def test_only_fields_that_may_be_none_are_none():
    for name in ("train.batch_size", "train.learning_rate"):
        with refuses(f"{name}=None", "must be"):
            main.resolve(main.parse(["jaxplm", "--config=dapt", f"--config.{name}=None"]).config, {name})
        with refuses(f"{name}=None", "must be"):
            jaxplm.run("dapt", fields={name: None})


@pytest.mark.parametrize(("call", "said"), [
    ({"recipe": "dpat"}, ("dpat", "dapt")),
    ({"recipe": "here/dapt.py"}, ("here/dapt.py", "no such file")),
    ({"recipe": "dapt", "fields": {"trian.steps": 3}}, ("unknown field", "trian.steps", "train.steps")),
    ({"recipe": "dapt", "fields": {"train": {"steps": 3}}}, ("unknown field", "train")),
    ({"recipe": "dapt", "fields": {"train.steps": "3"}}, ("train.steps='3'", "integer", "str")),
    ({"recipe": "dapt", "fields": {"train.steps": 1.5}}, ("train.steps=1.5", "integer", "float")),
    ({"recipe": "dapt", "fields": {"train.steps": True}}, ("train.steps=True", "integer", "bool")),
    ({"recipe": "dapt", "fields": {"train.freeze": ["a", 3]}}, ("train.freeze", "texts", "int")),
    ({"recipe": "dapt", "fields": {"train.schedule": "lin"}}, ("train.schedule='lin'", "linear")),
    ({"recipe": "dapt", "fields": {"train.steps": 3, "train.epochs": 1}}, ("train.steps", "train.epochs")),
    ({"recipe": "dapt", "fields": {"task.kind": "tag"}}, ("task.kind",)),
])
def test_mistakes_are_one_line_and_leave_no_directory(call, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with refuses(*said):
        jaxplm.run(**call)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_field_is_the_line_of_the_command(capsys):
    assert main.main(["jaxplm", "--config=dapt", "--config.trian.steps=3"]) == 2
    with pytest.raises(jaxplm.errors.UserError) as caught:
        jaxplm.run("dapt", fields={"trian.steps": 3})
    assert capsys.readouterr().err == f"jaxplm: {caught.value}\n"


def test_the_import_waits_for_no_library():
    code = "import jaxplm, sys; print(sorted({'jax', 'numpy', 'absl', 'typing'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_compare_refuses_what_gives_no_comparison(tmp_path):
    with refuses("ways", "adapt.ways"):
        jaxplm.compare(workdir=tmp_path, ways=("base",), fields={"adapt.ways": ("base",)})
    with refuses("adapt.dry_run", "jaxplm.run"):
        jaxplm.compare(workdir=tmp_path, fields={"adapt.dry_run": True})
    with refuses("adapt.ways", "dappt", "dapt"):
        jaxplm.compare(workdir=tmp_path, ways=["base", "dappt"])
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_is_what_the_recipe_has_written(monkeypatch, tmp_path):
    """Its stages are run in the tests of the notebook and of Snakemake."""
    written_there = Comparison("accuracy", True, "classify", (Way("base", "finetune", learning_rate=0.5),))
    asked = []

    def recipe(config: Config, workdir: Path, command: str) -> None:
        asked.append((config.adapt.ways, config.seed, workdir, command))
        write_comparison(workdir / "comparison.json", written_there)

    monkeypatch.setattr(main, "recipe_of", lambda name: recipe)
    monkeypatch.chdir(tmp_path)
    assert jaxplm.compare(ways=["base", "tapt"], fields={"seed": 3}) == written_there
    [(ways, seed, workdir, command)] = asked
    assert (ways, seed, workdir) == (("base", "tapt"), 3, Path("runs/adapt"))
    assert_says(command, "--config=adapt", "--config.seed=3")
    assert "--workdir" not in command


# ---------------------------------------------------------------- results

def written(workdir: Path, found: list[dict[str, Any]], **exported: Any) -> Path:
    (workdir / "export").mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    if exported:
        (workdir / "export" / "exported.json").write_text(json.dumps(exported))
    return workdir


def test_the_rows_of_the_best_step(tmp_path):
    found = [{"step": step, "split": split, "loss": loss} for step, split, loss in (
        (0, "validation", 1.0), (0, "general", 5.0), (1, "train", 4.0), (2, "validation", 3.0), (2, "general", 6.0), (3, "train", 3.5),
        (4, "validation", 3.0), (4, "general", 7.0), (6, "validation", None))]
    result = read_result(Config(), written(tmp_path / "run", found), "command")
    assert (result.step, result.metric, result.mean, result.seeds) == (2, "loss", {}, {})
    assert {split: row["loss"] for split, row in result.first.items()} == {"validation": 1.0, "general": 5.0}
    assert {split: row["loss"] for split, row in result.best.items()} == {"validation": 3.0, "general": 6.0}
    assert {split: row["loss"] for split, row in result.last.items()} == {"train": 3.5, "validation": None, "general": 7.0}
    assert list(result.rows) == found
    assert (result.export, result.report, result.embeddings) == (tmp_path / "run" / "export", None, None)


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    config = Config(recipe="finetune")
    config.task.kind, config.train.seeds = "classify", (4, 7)
    scores = {4: (0.5, 0.8), 7: (0.6, 0.4)}
    for seed, (validation, test) in scores.items():
        written(tmp_path / f"seed-{seed}", [{"step": 3, "split": "validation", "accuracy": validation, "loss": 1.0},
                                            {"step": 5, "split": "validation", "accuracy": 0.9, "loss": 0.1},
                                            {"step": 3, "split": "test", "accuracy": test, "seconds": 2.0}], step=3, metric="accuracy")
    written(tmp_path, [], step=3, metric="accuracy")
    result = read_result(config, tmp_path, "command")
    assert (result.step, result.metric, list(result.seeds)) == (3, "accuracy", [4, 7])
    assert result.best["test"]["accuracy"] == 0.4  # of seed 7, whose validation score is the best
    np.testing.assert_allclose([result.mean["test"]["accuracy"], result.std["test"]["accuracy"]], [0.6, np.std([0.8, 0.4], ddof=1)])
    np.testing.assert_allclose([result.mean["validation"]["accuracy"], result.std["validation"]["loss"]], [0.55, 0])
    assert "seconds" not in result.mean["test"]
    assert result.seeds[4].best["test"]["accuracy"] == 0.8


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"step": 3, "metric": "beauty"}'])
def test_a_damaged_export_is_one_line(note, tmp_path):
    config = Config(recipe="finetune")
    config.task.kind = "classify"
    written(tmp_path / "run", [])
    (tmp_path / "run" / "export" / "exported.json").write_text(note)
    with refuses("exported.json", "damaged", str(tmp_path / "run")):
        read_result(config, tmp_path / "run", "")


# ---------------------------------------------------------------- the process stays as it was

def test_loggers_and_warnings_are_put_back(capsys):
    log, library = logging.getLogger("jaxplm"), logging.getLogger("orbax")
    mine = logging.NullHandler()
    log.addHandler(mine)
    before = log.level, log.propagate, list(log.handlers), library.level, list(warnings.filters)
    with console.settings_kept():
        console.setup()
        log.info("a line")
        assert library.level == logging.CRITICAL and len(log.handlers) == 2
    assert (log.level, log.propagate, log.handlers, library.level, list(warnings.filters)) == before
    assert capsys.readouterr().out == "a line\n"


def test_signals_are_put_back_and_other_threads_leave_them_alone():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
    seen: list[Any] = []

    def elsewhere() -> None:
        with StopRequest() as stop:
            seen.extend((stop.agreed(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [0, before]


def test_a_notebook_has_one_output_that_is_replaced(monkeypatch):
    """Of IPython, no more is used than what is here."""
    outputs: list[list[str]] = []

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        outputs.append([bundle["text/plain"]])
        return SimpleNamespace(update=lambda bundle, raw: outputs[-1].append(bundle["text/plain"]))

    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display)))
    assert not ProgressBar(10).drawn  # IPython in a terminal
    shell.kernel = object()
    assert not ProgressBar(10, enabled=False).drawn
    with ProgressBar(200) as bar:
        for step in range(1, 201):
            bar.update(step, f"step {step}/200")
    [shown] = outputs
    assert shown[0].endswith("step 1/200") and shown[-1] == f"100% {'█' * 40} step 200/200"
    assert len(shown) <= 4  # not one per step
    with ProgressBar(None) as bar:
        bar.update(3, "3 texts")
    assert outputs[1] == ["3 texts"]


@pytest.mark.slow
def test_compiled_steps_are_kept_where_jax_was_used_before(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    directory, seconds = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        compilation_cache.reset_cache()
        jax.jit(lambda x: x * 3 + 1)(1.0)
        keep_compiled(tmp_path)
        jax.jit(lambda x: x * 5 + 1)(1.0)
    finally:
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
        compilation_cache.reset_cache()
    assert any(path.is_file() for path in tmp_path.rglob("*"))


# ---------------------------------------------------------------- runs

SCRIPT = """
import json, logging, os, signal, sys
import jax
jax.jit(lambda x: x + 1)(1.0)  # an earlier use of JAX
import jaxplm
workdir, fields = sys.argv[1], json.loads(sys.argv[2])

class At(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("step 7/"):
            os.kill(os.getpid(), signal.SIGINT)

log, at = logging.getLogger("jaxplm"), At()
log.addHandler(at)
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
try:
    jaxplm.run("dapt", workdir=workdir, fields=fields)
except KeyboardInterrupt as stopped:
    said = str(stopped)
assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
assert not os.path.exists(os.path.join(workdir, ".lock"))
log.removeHandler(at)
result = jaxplm.run("dapt", workdir=workdir, fields=fields)
assert jaxplm.run("dapt", workdir=workdir, fields=fields) == result
scores = jaxplm.run("evaluate", workdir=workdir + "-scores", fields={
    "model.path": result.export, "data.validation": fields["data.general"], "data.seq_len": 32, "train.batch_size": 8})
print(json.dumps([said, result.step, result.best["general"]["loss"], scores.best["validation"]["loss"], result.command]))
"""


@pytest.mark.slow
def test_a_run_in_python_is_the_commands(lab, reference, tmp_path):
    """Stopped by Ctrl-C, resumed, and then another recipe, in a process that has used JAX before."""
    workdir = tmp_path / "run"
    fields = {"model.path": str(lab.model), "data.train": str(lab.corpus), "data.general": str(lab.general), "data.seq_len": 32,
              "train.batch_size": 8, "train.steps": STEPS, "train.learning_rate": 2e-3, "train.eval_every": 6, "train.log_every": 1,
              "checkpoint.every": 2}
    done = lab.run([str(workdir), json.dumps(fields)], code=SCRIPT)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
    stopped, step, exported_loss, evaluated_loss, command = json.loads(done.stdout.splitlines()[-1])
    assert_says(stopped, "stopped", f"of {STEPS}", "saved")
    assert step == reference.exported_step
    assert abs(exported_loss - evaluated_loss) < 1e-5
    assert weights(workdir) == weights(reference.workdir)
    assert rows(workdir) == rows(reference.workdir)
    assert (workdir / "config.json").read_bytes() == (reference.workdir / "config.json").read_bytes()
    again = lab.run(command.split()[3:])
    assert again.returncode == 0
    assert_says(again.stdout, "finished", str(workdir))
