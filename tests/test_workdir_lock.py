"""One run per workdir: who holds the lock, when it is taken over, and what a copy of it means."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from messages import refuses

from jaxplm.engine import workdir_lock
from jaxplm.engine.workdir_lock import NAME, held


def rewrite(workdir: Path, **changes) -> None:
    """Change what a lock file says, in place: its inode stays."""
    path = workdir / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def left(tmp_path):
    """A workdir with the lock of this process, which is alive."""
    workdir = tmp_path / "run"
    lock = workdir_lock._Lock(workdir)
    lock.take()
    return workdir


def test_the_second_is_told_who_holds_the_workdir_and_since_when(tmp_path):
    workdir = tmp_path / "run"
    with held(workdir):
        since = json.loads((workdir / NAME).read_text())["since"]
        with refuses(str(workdir), str(os.getpid()), since), held(workdir):
            pass
        assert [path.name for path in workdir.iterdir()] == [NAME]
    assert not workdir.exists(), "what the lock created and the run left empty is gone"


def test_the_lock_is_given_back_and_files_stay(tmp_path):
    workdir = tmp_path / "a" / "run"
    with pytest.raises(KeyboardInterrupt), held(workdir):
        (workdir / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_dead_owner_is_replaced(left):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    rewrite(left, process=dead.pid)
    with held(left):
        assert json.loads((left / NAME).read_text())["process"] == os.getpid()


def test_another_process_of_the_same_number_is_not_the_owner(left):
    rewrite(left, started="1")
    with held(left):
        pass


def test_a_copy_of_a_live_workdir_is_free(left, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / NAME).write_bytes((left / NAME).read_bytes())
    with held(copy):
        pass


@pytest.mark.parametrize("content", [None, "", "[1]", "\udcff", "[" * 5000])
def test_another_machines_lock_holds_until_it_is_not_renewed(left, content):
    """So does one that cannot be read: whoever wrote it may be alive."""
    if content is None:
        rewrite(left, machine="another", host="far-away", process=4711)
    else:
        (left / NAME).write_bytes(content.encode("utf-8", "surrogateescape"))
    with refuses(str(left), *(["far-away", "4711"] if content is None else [NAME])), held(left):
        pass
    old = time.time() - workdir_lock._STALE_AFTER - 5
    os.utime(left / NAME, (old, old))
    with held(left):
        pass


def test_the_owner_renews_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir_lock, "_RENEWED_EVERY", 0.02)
    with held(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 20
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 60


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with held(tmp_path):
        with refuses(str(os.getpid())), held(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_of_many_that_find_a_dead_owner_one_gets_the_workdir(left):
    rewrite(left, started="1")
    got, ready = [], threading.Barrier(8)

    def take() -> None:
        lock = workdir_lock._Lock(left)
        ready.wait()
        try:
            lock.take()
            got.append(lock)
        except workdir_lock.UserError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert [path.name for path in left.iterdir()] == [NAME]


def test_a_workdir_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with refuses(str(file)), held(file):
        pass
    with refuses("File name too long"), held(tmp_path / ("a" * 300)):
        pass
