"""stdin, stdout and stderr of a command, where the caller has closed them or stops reading."""

import os
import sys


def open_closed() -> None:
    """Open what the caller has closed (`>&-`): the next file of the run would get its number, and the run's lines with it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def flush() -> None:
    """Write what is left of the output; where the reader has gone (`| head`), drop it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
