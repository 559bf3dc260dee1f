"""Runs that are stopped, killed or damaged: the same command resumes, and the result is that of an uninterrupted run."""

import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from commands import STEPS, fields, rows, succeeded, weights
from messages import assert_line, assert_refusal

pytestmark = pytest.mark.slow

# Slower steps to be stopped in, and a save between any two of them. Neither changes what is computed.
OFTEN = fields(checkpoint__every=1)


def saved(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def assert_same_run(workdir: Path, reference: Path, why: str) -> None:
    assert weights(workdir) == weights(reference), why
    assert rows(workdir) == rows(reference), why


def stopped_at(err: str) -> int:
    """Return the step that a stopped command says it saved, in its one line."""
    assert_refusal(err, "stopped", f"of {STEPS}", "saved", "command")
    return int(re.findall(rf"\bstep (\d+) of {STEPS}\b", err)[0])


@pytest.fixture(scope="module")
def stopped(lab):
    """(workdir, step) of a run that SIGTERM stopped in the middle."""
    workdir = lab.root / "stopped"
    with lab.started(lab.training(workdir, *OFTEN)) as command:
        command.wait_for(r"^step 7/")
        status, _, err = command.stop(signal.SIGTERM)
    assert status == 143, err
    return workdir, stopped_at(err)


def test_sigterm_saves_the_step_it_stopped_at(stopped):
    workdir, step = stopped
    assert step >= 7
    assert saved(workdir)[-1] == step
    assert not (workdir / "export").exists()


def test_the_same_command_resumes_after_sigterm_and_after_ctrl_c(lab, reference, stopped, tmp_path):
    """The first resumption compiles again, as on another machine."""
    workdir = tmp_path / "run"
    shutil.copytree(stopped[0], workdir)
    with lab.started(lab.training(workdir, *OFTEN), cached=False) as command:
        command.wait_for(rf"\bstep {stopped[1]} of {STEPS}\b")
        command.wait_for(rf"^step {stopped[1] + 2}/")
        status, _, err = command.stop(signal.SIGINT)
    assert status == 130, err
    step = stopped_at(err)
    out = succeeded(lab.train(workdir, *OFTEN))
    assert_line(out, f"step {step} of {STEPS}")
    assert "step 0" not in out, "it was evaluated before the first stop"
    assert_same_run(workdir, reference.workdir, f"stopped at {stopped[1]} and {step}")


def test_ctrl_c_before_there_is_anything_to_save(lab, tmp_path):
    with lab.started(lab.training(tmp_path / "run")) as command:
        command.wait_for(r"\bstep 0\b|^start ")
        status, _, err = command.stop(signal.SIGINT)
    assert status == 130
    assert_refusal(err, "stopped")


def test_a_second_run_in_the_workdir_is_refused_and_the_first_is_undisturbed(lab, reference, tmp_path):
    workdir = tmp_path / "run"
    with lab.started(lab.training(workdir)) as first:
        first.wait_for(r"^step 3/")
        began = time.monotonic()
        second = lab.train(workdir)
        took = time.monotonic() - began
        out, err = first.process.communicate()
    assert second.returncode == 2
    assert_refusal(second.stderr, str(workdir), str(first.process.pid), "--workdir")
    assert second.stdout == "" and took < 10
    assert (first.process.returncode, err) == (0, ""), out
    assert_same_run(workdir, reference.workdir, "")


def damage(workdir: Path, step: int, *, cut: bool) -> None:
    """Damage a checkpoint as a bad disk does: its largest file ends early, or one of its bits is flipped."""
    folder = workdir / "checkpoints" / str(step)
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content[: len(content) // 2] if cut else content)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(lab, reference, stopped, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(stopped[0], workdir)
    before, newest = saved(workdir)[-2:]
    damage(workdir, newest, cut=False)
    out = succeeded(lab.train(workdir))
    assert_line(out, "warning", f"step {newest}", "damaged", f"step {before}")
    assert_same_run(workdir, reference.workdir, f"{newest}, {before}")


def test_no_usable_checkpoint_is_the_users_decision(lab, stopped, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(stopped[0], workdir)
    for step in saved(workdir):
        damage(workdir, step, cut=True)
    done = lab.train(workdir)
    assert done.returncode == 2
    assert_refusal(done.stderr, str(len(saved(workdir))), str(workdir / "checkpoints"), "remove")


def test_a_run_does_not_resume_with_other_texts(lab, stopped, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(stopped[0], workdir)
    config = workdir / "config.json"
    config.write_text(re.sub('"corpus": "(?=[0-9a-f])', '"corpus": "0', config.read_text()))  # the fingerprint, not data.corpus
    done = lab.train(workdir)
    assert done.returncode == 2
    assert_refusal(done.stderr, "corpus.txt", "changed", str(workdir))
    assert saved(workdir) == saved(stopped[0])


def killed(lab, workdir: Path, line: str, delay: float) -> bool:
    """Run the command and kill it `delay` seconds after a line; return False if it had ended by then."""
    with lab.started(lab.training(workdir, *OFTEN)) as command:
        command.wait_for(line)
        time.sleep(delay)
        status, _, err = command.stop(signal.SIGKILL)
    assert status in (0, -signal.SIGKILL), err
    return status != 0


def test_killed_at_three_random_moments(lab, reference, tmp_path):
    """Once before or at the first steps, once between steps and saves, once while the last is saved, reported and exported."""
    workdir = tmp_path / "run"
    moments = [
        (random.choice(["tokens.* cache", "^start ", r"\bstep 0\b", "^step 1/", "^step 2/"]), random.uniform(0, 0.3)),
        (rf"^step {random.randint(8, STEPS - 6)}/", random.uniform(0, 0.1)),
        (rf"^step {STEPS}/", random.uniform(0, 0.5)),
    ]
    hits = []
    for line, delay in moments:
        try:
            hits.append(killed(lab, workdir, line, delay))
        except AssertionError as error:
            raise AssertionError(f"{moments}: {error}") from None
    assert any(hits), moments
    out = lab.train(workdir, *OFTEN)
    assert out.returncode == 0, f"{moments}\n{out.stdout}\n{out.stderr}"
    assert_same_run(workdir, reference.workdir, str(moments))
    found = [(row["step"], row["split"]) for row in rows(workdir)]
    assert len(found) == len(set(found)), moments
    left = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    left -= {"config.json", "metrics.jsonl", "checkpoints", "export", "plots", "report.md", "tensorboard"}
    assert not left, f"{moments}: {left}"


def test_a_row_of_the_log_covers_the_steps_before_and_after_a_stop(lab, tmp_path):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    rarely = fields(train__log_every=9, checkpoint__every=5)
    succeeded(lab.train(whole, *rarely))
    with lab.started(lab.training(workdir, *rarely)) as command:
        command.wait_for(r"^step 9/")
        command.stop(signal.SIGTERM)
    succeeded(lab.train(workdir, *rarely))
    assert rows(workdir) == rows(whole)
