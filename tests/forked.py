"""The real command, forked from one process that has its libraries imported: imports take most of a short run's time.

A forked command is `python -m jaxplm.main` in every other respect: a process with its own flags, output, signals and exit status.
Tests of what is imported, of variables that are read by an import, and of an interpreter's first moments start an interpreter.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commands import Lab

LIMIT = 300  # seconds for one command; a quiet machine needs some ten

# What a command runs; in its place, tests run it after a change, or look at what it does.
MAIN = """
import runpy
runpy.run_module("jaxplm.main", run_name="__main__", alter_sys=True)
"""

# Answers every line of JSON with one: the number of the process that a command was started as, or who has ended how.
SERVER = """
import gc, importlib, json, os, pkgutil, sys, traceback, warnings
sys.path.append("tests")
import hidden_torch
hidden_torch.hide()  # the command does without it
from jaxplm.reporting import console
console.setup()
import jaxplm.recipes, transformers, tensorboardX
for module in pkgutil.walk_packages(jaxplm.recipes.__path__, "jaxplm.recipes."):
    importlib.import_module(module.name)
from transformers import AutoTokenizer
# What a run imports when it scores and draws: two seconds of a fine-tuning. Plots import PIL's plugins and the Agg backend.
import matplotlib.backends.backend_agg, matplotlib.figure, matplotlib.ticker, ml_collections.config_flags, PIL.PngImagePlugin
import scipy.stats, sklearn.metrics
gc.collect(), gc.freeze()  # a command's collections need not walk through what was imported here
warnings.simplefilter("ignore")  # JAX's of a fork: no device was asked for anything yet

def start(arguments, out, err, code, here, path):
    create = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [os.open(os.devnull, os.O_RDONLY), os.open(out, create), os.open(err, create)]
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    for number, file in enumerate(files):
        os.dup2(file, number)
    sys.stdout.reconfigure(line_buffering=True)
    sys.argv, sys.path[:0] = ["jaxplm.main", *arguments], path
    os.chdir(here)
    status = 1
    try:
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status or 0)

def wait():
    pid, status = os.wait()
    return pid, os.waitstatus_to_exitcode(status)

for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(start(**request) if request else wait()), flush=True)
"""


class Server:
    """The process that commands are forked from; started when the first one is asked for."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self._root, self._errors = root, tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen([sys.executable, "-c", SERVER], cwd=root, env=environment, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self._ended: dict[int, int] = {}

    def start(self, flags: Sequence[str], out: Path, err: Path, *, code: str = MAIN, here: Path | None = None,
              path: Sequence[Path] = ()) -> int:
        """Start a command; return the number of its process.

        Args:
          code: what runs in place of the command.
          here: the directory that the command is started in; the repository's by default.
          path: directories that Python searches first.
        """
        return self._ask({"arguments": list(flags), "out": str(out), "err": str(err), "code": code, "here": str(here or self._root),
                          "path": list(map(str, path))})

    def wait(self, pid: int) -> int:
        """Return the exit status of a command, or the signal that ended it as a negative number, when it has ended."""
        while pid not in self._ended:
            ended, status = self._ask(None)
            self._ended[ended] = status
        return self._ended.pop(pid)

    def wait_for_any(self, pids: Sequence[int]) -> int:
        """Return the process that has ended first."""
        while not self._ended.keys() & set(pids):
            ended, status = self._ask(None)
            self._ended[ended] = status
        return next(pid for pid in pids if pid in self._ended)

    def close(self) -> None:
        """End the server."""
        self._process.communicate()
        self._errors.close()

    def _ask(self, request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline() if select.select([self._process.stdout], [], [], LIMIT)[0] else ""
        if not answer:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            raise AssertionError(f"no answer from the server of commands in {LIMIT} s: {self._errors.read()}")
        return json.loads(answer)


class ForkedProcess:
    """A forked command while it runs; the part of `subprocess.Popen` that the tests need."""

    def __init__(self, server: Server, flags: Sequence[str]) -> None:
        self._server, self._directory = server, tempfile.TemporaryDirectory()
        out, self._err = Path(self._directory.name) / "out", Path(self._directory.name) / "err"
        os.mkfifo(out)
        reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)  # the server opens the other end before it answers
        self.pid = server.start(flags, out, self._err)
        os.set_blocking(reader, True)
        self.stdout: IO[str] = os.fdopen(reader)
        self.returncode: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the rest of the output and all of the errors when the command has ended; the server keeps the time limit."""
        if self.returncode is None:
            self.returncode = self._server.wait(self.pid)
            self._said = self.stdout.read(), self._err.read_text()
            self.stdout.close()
            self._directory.cleanup()
        return self._said


@dataclass(frozen=True)
class Outcome:
    """What is left of a command."""

    status: int
    out: str
    err: str

    def succeeded(self) -> str:
        """Return the output of a command that must have succeeded without a word on stderr."""
        assert self.status == 0, f"{self.status}\n{self.out}\n{self.err}"
        assert self.err == ""
        return self.out


def run_all(lab: "Lab", commands: Sequence[Sequence[str]], **how: Any) -> list[Outcome]:
    """Run `python -m jaxplm.main` with each list of flags, two at a time; they start in the given order. `how`: see `Server.start`."""
    with tempfile.TemporaryDirectory() as here:
        places = [Path(here) / str(i) for i in range(len(commands))]
        statuses: dict[int, int] = {}
        running: dict[int, int] = {}  # process: number of the command

        def end_one() -> None:
            pid = lab.server.wait_for_any(list(running))
            statuses[running.pop(pid)] = lab.server.wait(pid)

        for i, (flags, place) in enumerate(zip(commands, places, strict=True)):
            if len(running) == 2:
                end_one()
            running[lab.server.start(flags, place.with_suffix(".out"), place.with_suffix(".err"), **how)] = i
        while running:
            end_one()
        return [Outcome(statuses[i], place.with_suffix(".out").read_text(), place.with_suffix(".err").read_text())
                for i, place in enumerate(places)]
