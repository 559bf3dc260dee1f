"""The restart for huge pages: once, the same process, the same command; and left alone where it is not wanted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxplm.devices import huge_pages

ROOT = Path(__file__).parents[1]

# Stands for the console script: tells its process, its arguments and what glibc was told, before and after.
COMMAND = """
import os, sys
from jaxplm.devices import huge_pages
sys.platform = "linux"
huge_pages._on_demand = lambda: {on_demand}
print(os.getpid(), sys.flags.dev_mode, sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
if huge_pages.is_plain_command(sys.orig_argv):
    huge_pages.restart_with_huge_pages()
"""


@pytest.mark.parametrize(("tunables", "on_demand", "name", "seen"), [
    (None, True, "jaxplm", [None, "glibc.malloc.hugetlb=1"]),
    ("glibc.malloc.check=0", True, "jaxplm", ["glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"]),
    ("glibc.malloc.hugetlb=0", True, "jaxplm", ["glibc.malloc.hugetlb=0"]),
    (None, False, "jaxplm", [None]),
    (None, True, "another", [None]),
])
def test_restart(tunables, on_demand, name, seen, tmp_path):
    (tmp_path / name).write_text(COMMAND.format(on_demand=on_demand))
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"} | {"PYTHONPATH": str(ROOT)}
    environment |= {} if tunables is None else {"GLIBC_TUNABLES": tunables}
    process = subprocess.Popen([sys.executable, "-X", "dev", tmp_path / name, "a b", "--c=영화"], env=environment,
                               stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.splitlines() == [f"{process.pid} True {['a b', '--c=영화']} {value}" for value in seen]


@pytest.mark.parametrize(("argv", "plain"), [
    ("python -m jaxplm.main --config=dapt", True),
    ("python -u -X dev -W error -m jaxplm.main", True),
    ("python /usr/local/bin/jaxplm --config=dapt", True),
    ("python -I jaxplm", True),
    ("python -m pdb -m jaxplm.main --config=dapt", False),
    ("python -m cProfile -o profile -m jaxplm.main", False),
    ("python /usr/bin/coverage run -m jaxplm.main", False),
    ("python -c code jaxplm.main", False),
    ("python -m pytest tests/test_huge_pages.py jaxplm.main", False),
    ("python", False),
    ("python -X", False),
])
def test_debuggers_and_profilers_are_left_alone(argv, plain):
    assert huge_pages.is_plain_command(argv.split()) is plain


def test_a_command_that_cannot_be_restarted_continues(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(huge_pages, "_on_demand", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "jaxplm.main"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    huge_pages.restart_with_huge_pages()
    os.environ.pop("GLIBC_TUNABLES", None)


def test_without_the_kernels_file(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_THP", tmp_path / "none")
    assert not huge_pages._on_demand()
