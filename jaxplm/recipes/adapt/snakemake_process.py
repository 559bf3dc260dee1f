"""Run a workflow engine as long as the process lives that has started it: `python -m ... PARENT COMMAND ...`, in a session of its own.

On SIGTERM, and when the process PARENT is gone, the engine is asked to start nothing more, its stages on this machine to save,
and after some seconds the engine to cancel what runs elsewhere. It is a process of its own because a command that is killed
cannot stop what it has started.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

MODULE = "jaxplm.recipes.adapt.snakemake_process"
_POLL_SECONDS = 0.2
_CANCEL_AFTER = 3.0  # between the requests to cancel too: Snakemake loses one that comes while a job of its ends
SAVING_SECONDS = 120.0  # after which what is left is killed: the last checkpoints are on disk


def main(argv: list[str]) -> int:
    """Run the command, and return its exit status when it has ended."""
    parent, command = int(argv[1]), argv[2:]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while process.poll() is None:
        if asked or os.getppid() != parent:
            return _stop(process)
        time.sleep(_POLL_SECONDS)
    return process.returncode


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Stop the group of processes; return the exit status of the engine."""
    began = asked_at = time.monotonic()
    os.killpg(0, signal.SIGTERM)  # this process too, which only takes note
    while process.poll() is None:
        now = time.monotonic()
        if now - began > SAVING_SECONDS:
            os.killpg(0, signal.SIGKILL)
        if now - asked_at > _CANCEL_AFTER:
            asked_at = now
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        time.sleep(_POLL_SECONDS)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv))
