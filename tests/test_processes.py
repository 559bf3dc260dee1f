"""Two processes of one run by launch/local.sh compute what one process computes."""

import os
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from commands import LIMIT, ROOT, STEPS, fields, rows, succeeded
from messages import assert_refusal, assert_says
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow


def launch(lab, count: int, flags: list[str]) -> subprocess.Popen[str]:
    """launch/local.sh in a process group of its own, as a shell starts it."""
    return subprocess.Popen(["bash", "launch/local.sh", str(count), *flags], cwd=ROOT, env=lab.environment(PYTHONUNBUFFERED="1"),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(parent: int) -> list[int]:
    """The two commands that local.sh started, in their order (it starts `sleep`s too)."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [int(line.split()[0]) for line in listed if line.split()[1] == str(parent) and "jaxplm.main" in line]
    assert len(found) == 2, listed
    return sorted(found)


def end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of the group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def test_two_processes_are_stopped_and_resumed_together_and_equal_one(lab, tmp_path):
    """Same rows, masks and dropout: the losses agree to 1e-5, and so do the weights (sums are taken in another order).

    In float32 on any machine: where a CPU multiplies bfloat16, another order of a sum can round a factor the other way.
    """
    one, workdir = tmp_path / "one", tmp_path / "run"
    precision = fields(compute__dtype="float32")
    succeeded(lab.train(one, *precision))
    flags = lab.training(workdir, *precision)
    first = launch(lab, 2, flags)
    try:
        assert first.stdout is not None
        seen = ""
        for line in first.stdout:
            seen += line
            if line.startswith("step 5/"):
                break
        first.terminate()  # of the script alone: it passes the signal on
        status, out, err = finish(first)
    finally:
        end(first)
    assert status == 143, f"{seen}{out}\n{err}"
    stopped = re.findall(rf"stopped.*\bstep (\d+) of {STEPS}\b.*saved", err)
    assert stopped, err
    assert len(set(stopped)) == 1, "both stopped at one step"

    second = launch(lab, 2, flags)
    try:
        status, out, err = finish(second)
    finally:
        end(second)
    assert status == 0, f"{out}\n{err}"
    assert err == ""
    assert out.count(f"step {stopped[0]} of {STEPS}") == 1, "only the first process speaks"
    assert re.search(r"2 × cpu\b.*\b2 process", out), out

    for ours, theirs in zip(rows(workdir), rows(one), strict=True):
        assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        assert ours.get("tokens") == theirs.get("tokens")
        np.testing.assert_allclose(ours["loss"], theirs["loss"], atol=1e-5, err_msg=str(theirs))
    ours, theirs = (load_file(run / "export" / "model.safetensors") for run in (workdir, one))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=2e-5, err_msg=name)


def test_the_users_mistake_ends_both(lab, tmp_path):
    process = launch(lab, 2, lab.training(tmp_path / "run", *fields(train__batch_size=9)))
    try:
        status, _, err = finish(process)
    finally:
        end(process)
    assert status == 2
    assert_refusal(err, "train.batch_size=9", "2")  # said by both, written once


def test_one_process_that_dies_takes_the_other_with_it(lab, tmp_path):
    """Otherwise the other would wait for it without end. The script says which signal it was, and that the run can be resumed."""
    process = launch(lab, 2, lab.training(tmp_path / "run"))
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"\bstep 0\b", line):
                break
        os.kill(children(process.pid)[1], signal.SIGKILL)
        began = time.monotonic()
        status, _, err = finish(process)
        assert status == 128 + signal.SIGKILL
        [line] = [line for line in err.splitlines() if line.startswith("launch/local.sh")]
        assert_says(line, "signal 9", "same command", "resumes", "checkpoint")
        [other] = [line for line in err.splitlines() if line.startswith("jaxplm: ")]
        assert_says(other, "another process", "same command", "resumes")
        assert sorted(err.splitlines()) == sorted([other, line])  # the script and the other process write at the same time
        assert time.monotonic() - began < 9  # it is not ended by the script, which waits for ten seconds
    finally:
        end(process)


@pytest.mark.parametrize("arguments", [[], ["2"], ["zero", "--config=configs/dapt.py"], ["0", "--config=configs/dapt.py"]])
def test_usage(arguments):
    done = subprocess.run(["bash", "launch/local.sh", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/local.sh N ")
