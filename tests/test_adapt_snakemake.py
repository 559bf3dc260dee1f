"""Snakemake as the engine of a comparison: a Snakefile of literals, the same results as the local engine's, stops, refusals."""

import ast
import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from commands import fields, rows, succeeded, weights
from messages import refuses

from jaxplm.recipes.adapt import snakemake_process
from jaxplm.recipes.adapt.plan import Plan, Stage
from jaxplm.recipes.adapt.snakefile import FILE, snakefile
from jaxplm.recipes.adapt.snakemake_engine import OUTPUT, command, require_snakemake
from jaxplm.reporting.comparison.comparison import Comparison, Cost
from jaxplm.reporting.comparison.stored import read_comparison

PROFILE = Path(__file__).parents[1] / "launch" / "snakemake-slurm"
HOSTILE = "it's {a} \"b\" $(c)\n#"
PLAN = Plan((Stage("dapt", "dapt", {}), Stage("finetune/dapt/lr=2e-05", "finetune", {}, after=("dapt",)),
             Stage("finetune/dapt/lr=2e+05", "finetune", {}, after=("dapt",)),
             Stage("finetune/dapt/final", "finetune", {}, after=("dapt",), chooses=("finetune/dapt/lr=2e-05", "finetune/dapt/lr=2e+05"))))


def directives(text: str, name: str) -> list[object]:
    """The values of all directives of a name, in order, as Python reads them."""
    return [ast.literal_eval(line.split(":", 1)[1].strip()) for line in text.splitlines() if line.strip().startswith(f"{name}:")]


def test_data_cannot_leave_its_literals(tmp_path):
    workdir, here, python = Path(f"runs/{HOSTILE}"), Path(f"/tmp/{HOSTILE}"), f"/{HOSTILE}/python"
    text = snakefile(PLAN, workdir, python, here)
    shells = [str(shell) for shell in directives(text, "shell")]
    assert len(shells) == len(PLAN.stages)
    for stage, shell in zip(PLAN.stages, shells, strict=True):
        said = shell.format()  # what Snakemake does with it
        assert shlex.split(said) == ["cd", str(here), "&&", "JAXPLM_ADAPT_PARENT=$PPID", "exec", python, "-m", "jaxplm.recipes.adapt.stage",
                                     str(workdir), stage.name]
    assert len([line for line in text.splitlines() if line.startswith("rule ")]) == len(PLAN.stages) + 1


def test_a_rule_per_stage_with_what_it_needs():
    text = snakefile(PLAN, Path("runs/x"), "python", Path("/here"))
    first, *others = directives(text, "input")
    assert first == "stages/finetune/dapt/final/stage.json"  # what nothing needs
    assert others == ["stages/dapt/stage.json", "stages/dapt/stage.json",
                      ("stages/dapt/stage.json", "stages/finetune/dapt/lr=2e-05/stage.json", "stages/finetune/dapt/lr=2e+05/stage.json")]
    assert directives(text, "output") == [f"stages/{stage.name}/stage.json" for stage in PLAN.stages]
    assert directives(text, "log") == [f"stages/{stage.name}/log.txt" for stage in PLAN.stages]
    rules = [line.split()[1] for line in text.splitlines() if line.startswith("rule ")]
    assert rules == ["all:", "stage_dapt:", "stage_finetune_dapt_lr_2e_05:", "stage_finetune_dapt_lr_2e_05_2:",
                     "stage_finetune_dapt_final:"]


@pytest.mark.parametrize("name", ["a b", "a{b}", "a'b", "a//b", "/a", "a/", "", "a\nb", "ä"])
def test_other_names_of_stages_are_a_fault(name):
    with refuses("name of a stage", error=ValueError):
        snakefile(Plan((Stage(name, "dapt", {}),)), Path("runs/x"), "python", Path("/here"))


def test_what_is_missing_is_one_line(monkeypatch, tmp_path):
    with refuses("adapt.profile", str(tmp_path), "config.yaml"):
        require_snakemake(str(tmp_path))
    require_snakemake(str(PROFILE))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refuses("adapt.engine=snakemake", "pip install 'jaxplm[snakemake]'"):
        require_snakemake("")


def test_the_profile_for_slurm_is_yaml():
    profile = yaml.safe_load((PROFILE / "config.v8+.yaml").read_text("utf-8"))
    assert profile["executor"] == "slurm" and profile["config"] == ["gpus=1"]


# ---------------------------------------------------------------- Snakemake itself

@pytest.mark.slow
@pytest.mark.parametrize("profile", ["", str(PROFILE)], ids=["this machine", "slurm"])
def test_snakemake_reads_the_file(profile, tmp_path):
    """In a directory of a name that means something to Snakemake, Python and shells."""
    here = tmp_path / "it's {a} $(b)"
    here.mkdir()
    (here / FILE).write_text(snakefile(PLAN, here, f"/{HOSTILE}/python", here))
    done = subprocess.run([*command(here, 3, profile), "--dry-run"], capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for rule in ("stage_dapt", "stage_finetune_dapt_lr_2e_05", "stage_finetune_dapt_lr_2e_05_2", "stage_finetune_dapt_final"):
        assert f"rule {rule}:" in said
    assert ("gpu=1" in said) == bool(profile)


ENGINE = """
import os, signal, subprocess, sys, time
def stop(number, frame):
    os.write(1, f"engine asked {number}\\n".encode())  # in one piece: the stage writes to the same pipe
    if number == signal.SIGINT:
        sys.exit(9)
signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, stop)
subprocess.Popen([sys.executable, "-c", "import os, signal, sys, time;"
    "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'stage saves\\\\n'), sys.exit(143)));"
    "print('started', flush=True); time.sleep(60)"])
while True:
    time.sleep(0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "left alone"])
def test_the_engine_and_its_stages_end_with_the_command(how, tmp_path):
    """An engine that waits for the jobs of a cluster is asked to cancel them after some seconds."""
    attached = [sys.executable, "-m", snakemake_process.MODULE]
    code = f"""
import os, subprocess, sys
process = subprocess.Popen([*{attached!r}, str(os.getpid()), sys.executable, "-c", {ENGINE!r}], start_new_session=True)
print(process.pid, flush=True)
sys.exit(process.wait())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "started\n"
        if how == "asked":
            os.kill(pid, signal.SIGTERM)
        else:
            parent.kill()
        said = parent.stdout.read().splitlines()
    assert sorted(said) == ["engine asked 15", "engine asked 2", "stage saves"]
    assert parent.returncode == (9 if how == "asked" else -signal.SIGKILL)


def without_costs(comparison: Comparison) -> Comparison:
    """A comparison without what depends on the machine's speed, on the workdir and on the command."""
    ways = (dataclasses.replace(way, preparation=Cost(), training=Cost(), commands=()) for way in comparison.ways)
    runs = [dataclasses.replace(way, runs=tuple(dataclasses.replace(run, parts=None) for run in way.runs)) for way in ways]
    return dataclasses.replace(comparison, ways=tuple(runs), command="", settings=())


@pytest.mark.slow
def test_both_engines_give_the_same(lab, tmp_path):
    texts = [json.loads(line) if line.startswith("{") else line for line in lab.corpus.read_text().splitlines()[:60]]
    for name, part in (("train", texts[:40]), ("validation", texts[40:50]), ("test", texts[50:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(
            json.dumps({"text": text, "label": ("even", "odd")[len(text) % 2]}) + "\n" for text in part))
    flags = [
        *fields(model__path=lab.model, task__kind="classify", data__seq_len=32, train__seeds="(1,)", adapt__ways="('tapt',)",
                adapt__learning_rates="(1e-3,)", adapt__few_rows="()",
                adapt__tapt="('train.steps=2','train.batch_size=4')", adapt__finetune="('train.steps=2','train.batch_size=4')"),
        *fields(**{f"data__{name}": tmp_path / f"{name}.jsonl" for name in ("train", "validation", "test")}),
    ]
    workdirs = {engine: tmp_path / engine for engine in ("local", "snakemake")}
    for engine, workdir in workdirs.items():
        succeeded(lab.run(["--config=adapt", f"--workdir={workdir}", f"--config.adapt.engine={engine}", *flags]))
    for stage in ("tapt", "finetune/tapt/final"):
        one, other = (workdir / "stages" / stage for workdir in workdirs.values())
        assert rows(one) == rows(other)
        assert weights(one) == weights(other)
    local, snakemake = (without_costs(read_comparison(workdir / "comparison.json")) for workdir in workdirs.values())
    assert repr(local) == repr(snakemake)  # NaN where nothing was measured
    assert len(local.ways[0].runs) == 1
    assert (workdirs["snakemake"] / FILE).exists() and (workdirs["snakemake"] / OUTPUT).exists()
    began = time.time_ns()
    out = succeeded(lab.run(["--config=adapt", f"--workdir={workdirs['snakemake']}", "--config.adapt.engine=snakemake", *flags]))
    assert out.count("has ended before") == 2
    assert all(path.stat().st_mtime_ns < began for path in workdirs["snakemake"].glob("stages/**/model.safetensors"))
