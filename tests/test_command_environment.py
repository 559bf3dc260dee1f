"""What the environment has wrong: one line with status 2, that names the variable; and signals before there is a run."""

import os
import re
import signal
import subprocess
import sys

import pytest
from commands import ROOT, fields
from forked import LIMIT
from messages import assert_refusal, refuses

from jaxplm import errors
from jaxplm.checkpoint.manager import Checkpoints
from jaxplm.config import Config, Data, Model, Train, check_value
from jaxplm.data.sources.specs import local_files
from jaxplm.devices import clusters, processes
from jaxplm.recipes.pretrain import checks

COMMAND = [sys.executable, "-m", "jaxplm.main", "--config=dapt"]


@pytest.fixture
def environment(monkeypatch):
    """Set variables in place of all that say something about several processes."""
    def use(**variables):
        for name in (*clusters.MENTIONED, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM_NTASKS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return use


@pytest.mark.parametrize(("variables", "says"), [
    ({"JAX_COORDINATOR_ADDRESS": "foo", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, ["JAX_COORDINATOR_ADDRESS=foo"]),
    ({"JAX_COORDINATOR_ADDRESS": "h:99999", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, ["h:99999"]),
    ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "5"}, ["JAX_PROCESS_ID=5", "JAX_NUM_PROCESSES=2"]),
    ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "5"}, ["JAX_NUM_PROCESSES=two"]),
    ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2"}, ["JAX_PROCESS_ID"]),
    ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "-1", "JAX_PROCESS_ID": "0"}, ["JAX_NUM_PROCESSES=-1"]),
    ({"SLURM_NTASKS": "abc", "SLURM_PROCID": "0"}, ["SLURM_NTASKS=abc"]),
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, ["SLURM_NTASKS=8", "SLURM_STEP_NODELIST", "srun"]),
    ({"OMPI_COMM_WORLD_SIZE": "x"}, ["OMPI_COMM_WORLD_SIZE=x"]),
    ({"MEGASCALE_NUM_SLICES": "0"}, ["MEGASCALE_NUM_SLICES=0"]),
    ({"JAXPLM_DISTRIBUTED": "yes"}, ["JAXPLM_DISTRIBUTED=yes", "auto"]),
    ({"JAXPLM_DISTRIBUTED": "auto"}, ["JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"]),  # JAX finds none here
])
def test_variables_of_several_processes(environment, variables, says):
    environment(**variables)
    with refuses(*says):
        processes.join_processes()


def test_who_is_missing_is_said_while_waiting(environment, monkeypatch, capsys):
    environment(JAX_COORDINATOR_ADDRESS="far:1", JAX_NUM_PROCESSES="3", JAX_PROCESS_ID="1")
    monkeypatch.setattr(processes, "_PATIENCE", 0.1)
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **_: processes.time.sleep(1))
    processes.join_processes()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(r"\bJAX_NUM_PROCESSES=3\b.*\bJAX_PROCESS_ID=1\b.*\b0, 2\b.*\bfar:1\b", said), said


@pytest.mark.parametrize(("error", "says"), [
    (errors.UserError("a b"), ["a b"]),
    (MemoryError("Unable to allocate 7 TiB"), ["7 TiB", "train.batch_size"]),
    (OSError(28, "No space left on device", "/tmp/x/y"), ["/tmp/x/y", "MB"]),
    (OSError(28, "No space left on device"), ["disk space"]),
    (PermissionError(13, "Permission denied", "/x"), ["/x", "Permission denied"]),
    (OSError(30, "Read-only file system", "/x"), ["/x", "Read-only file system"]),
    (FileExistsError(17, "File exists", b"/run/plots"), ["/run/plots"]),
])
def test_what_the_machine_raises_is_one_line(error, says):
    line = errors.explain(error)
    assert line and "\n" not in line
    assert_refusal(f"jaxplm: {line}\n", *says)


@pytest.mark.parametrize("text", [
    "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error [127.0.0.1]:4: Connection reset by peer",
    "INTERNAL: NCCL operation failed: remote process exited or there was a network error", "UNAVAILABLE: Socket closed",
])
def test_another_process_that_is_gone(text):
    error = type("JaxRuntimeError", (RuntimeError,), {})(text)
    assert_refusal(f"jaxplm: {errors.explain(error)}\n", "another process", "same command", text.partition(":")[0])
    assert errors.explain(type(error)("INTERNAL: something else")) is None


@pytest.mark.parametrize("error", [ValueError("x"), FileNotFoundError(2, "No such file", "/x"), KeyError("x"), OSError("x")])
def test_faults_of_our_own_keep_their_traceback(error):
    assert errors.explain(error) is None


def test_long_names_are_shortened():
    line = str(errors.UserError(f"data.train={'a' * 20_000}b: no such file; try {'c' * 5000}"))
    assert len(line) < 1000
    assert "no such file" in line
    assert "20,0" not in line
    assert len(str(errors.UserError("word " * 10_000))) <= 4000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported(lab, tmp_path, number):
    process = subprocess.Popen([*COMMAND, f"--workdir={tmp_path / 'run'}", "--config.model.path=builtin:tiny"], cwd=ROOT,
                               env=lab.environment(PYTHONVERBOSE="1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "import 'numpy'" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + number, err[-2000:]
    assert "Traceback" not in err


def test_signals_are_answered_before_anything_large_is_imported():
    """Until then Python answers Ctrl-C, with its own status."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import jaxplm.devices.stop_signals; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=True)
    assert not {"typing", "re", "pathlib", "numpy", "jax"} & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(("variable", "value"), [
    ("JAX_PLATFORMS", "cuda"), ("JAX_NUM_CPU_DEVICES", "abc"), ("XLA_FLAGS", "--no_such_flag=1"),
    ("XLA_FLAGS", "--xla_force_host_platform_device_count=abc"), ("HF_HUB_DOWNLOAD_TIMEOUT", "abc"),
])
def test_what_jax_cannot_start_with(lab, tmp_path, variable, value):
    done = lab.run([*COMMAND[3:], f"--workdir={tmp_path / 'run'}"], **{variable: value})
    assert done.returncode == 2
    assert_refusal(done.stderr, f"{variable}={value}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stdout_is_closed(lab, reference):
    arguments = lab.training(reference.workdir)
    done = subprocess.run(["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-m", "jaxplm.main", *arguments], cwd=ROOT,
                          env=lab.environment(), stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--config=dapt", "--help"], ["--version"]])
def test_nobody_reads_the_answer(lab, arguments):
    """As in `--help | head`, where the reader has gone before everything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND[:3], *arguments], cwd=ROOT, env=lab.environment(), stdout=writer, stderr=subprocess.PIPE, text=True,
                          timeout=LIMIT, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# A directory's permissions hold for root too without this capability, CAP_DAC_OVERRIDE.
WITHOUT_OVERRIDE = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(24, 1)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "closed"), [("extend_vocab", ""), ("extend_vocab", "vocabulary"), ("exbert", ""), ("scratch", "")])
def test_a_workdir_that_cannot_be_written(lab, tmp_path, recipe, closed):
    terms = tmp_path / "terms.txt"
    terms.write_text("cardiomyopathy\n")
    workdir = tmp_path / "run"
    (workdir / closed).mkdir(parents=True)
    (workdir / closed).chmod(0o555)
    added = {} if recipe == "scratch" else {"model__path": lab.model, "vocab__terms": terms, "vocab__new_tokens": 1}
    flags = [f"--config={recipe}", f"--workdir={workdir}", *fields(data__train=lab.corpus, train__steps=1, **added)]
    done = subprocess.run([sys.executable, "-c", WITHOUT_OVERRIDE, *COMMAND[1:3], *flags], cwd=ROOT, env=lab.environment(),
                          capture_output=True, text=True, timeout=LIMIT, check=False)
    (workdir / closed).chmod(0o755)
    assert done.returncode == 2
    assert_refusal(done.stderr, str(workdir / closed), "Permission denied")
    assert not (workdir / "export").exists()


def test_the_wrong_one_in_a_tuple_is_named():
    with refuses("train.seeds", "str", "'b'"):
        check_value("train.seeds", (1, "b"))


def test_a_link_to_nothing(tmp_path):
    (tmp_path / "corpus.txt").symlink_to(tmp_path / "gone.txt")
    with refuses(str(tmp_path / "corpus.txt"), str(tmp_path / "gone.txt")):
        local_files(str(tmp_path / "corpus.txt"))


def test_scratch_knows_its_positions_before_it_reads_a_text():
    config = Config(recipe="scratch", data=Data(train="x", seq_len=64), model=Model(path="", max_positions=32), train=Train(steps=1))
    with refuses("data.seq_len=64", "model.max_positions=32"):
        checks.check(config)


def test_a_write_that_failed_is_reported_once(monkeypatch, tmp_path, capsys):
    """Of the others that it ended, TensorStore's threads report each to `sys.excepthook`."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with Checkpoints(tmp_path / "checkpoints", keep=1, save_every=1):
        sys.excepthook(RuntimeError, RuntimeError("Event loop is closed"), None)
        assert capsys.readouterr().err == ""
        sys.excepthook(RuntimeError, RuntimeError("another"), None)
        assert "another" in capsys.readouterr().err
