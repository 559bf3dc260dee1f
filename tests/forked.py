"""Many runs of the real command, forked from one process that has its libraries imported: most of a short run is imports."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from commands import LIMIT, ROOT, Lab

# Reads [[arguments of a command, file for its output, file for its errors], ...] and answers with their exit statuses.
SERVER = """
import json, os, runpy, sys, traceback, warnings
from jaxplm.reporting import console
console.setup()
import jaxplm.recipes.evaluate.recipe, jaxplm.recipes.finetune.recipe, jaxplm.recipes.pretrain.recipe, transformers, tensorboardX
from transformers import AutoTokenizer
warnings.simplefilter("ignore")  # JAX's of a fork: no device was asked for anything yet

def start(arguments, out, err):
    pid = os.fork()
    if pid:
        return pid
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["jaxplm.main", *arguments]
    status = 1
    try:
        runpy.run_module("jaxplm.main", run_name="__main__", alter_sys=True)
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)

statuses, running, pending = {}, {}, dict(enumerate(json.load(sys.stdin)))
while pending or running:
    while pending and len(running) < 2:
        number = min(pending)
        running[start(*pending.pop(number))] = number
    pid, status = os.wait()
    statuses[running.pop(pid)] = os.waitstatus_to_exitcode(status)
print(json.dumps([statuses[i] for i in range(len(statuses))]))
"""


@dataclass(frozen=True)
class Outcome:
    """What is left of a command."""

    status: int
    out: str
    err: str

    def succeeded(self) -> str:
        """The output of a command that must have ended well and in silence."""
        assert self.status == 0, f"{self.status}\n{self.out}\n{self.err}"
        assert self.err == ""
        return self.out


def run_all(lab: Lab, commands: list[list[str]]) -> list[Outcome]:
    """Runs `python -m jaxplm.main` with each list of flags, two at a time; they start in the given order."""
    with tempfile.TemporaryDirectory() as here:
        places = [Path(here) / str(i) for i in range(len(commands))]
        jobs = [[flags, f"{place}.out", f"{place}.err"] for flags, place in zip(commands, places, strict=True)]
        done = subprocess.run([sys.executable, "-c", SERVER], input=json.dumps(jobs), cwd=ROOT, env=lab.environment(),
                              capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stderr
        return [Outcome(status, Path(f"{place}.out").read_text(), Path(f"{place}.err").read_text())
                for place, status in zip(places, json.loads(done.stdout.splitlines()[-1]), strict=True)]
