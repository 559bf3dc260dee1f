"""Exceptions for which `jaxplm.main` prints one line: a mistake that the user can correct, or a run that was stopped."""

import difflib
import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

# What follows the traceback of a fault of our own.
REPORT = ("This is a fault of jaxplm and not of yours: please report it with these lines, the command and the versions"
          " (`jaxplm --version`, `pip freeze`) at https://github.com/jaxplm/jaxplm/issues")
_LONGEST_WORD, _LONGEST_LINE = 400, 4000  # characters of a message


class UserError(Exception):
    """A mistake by the user: a wrong field, a missing file, an incompatible checkpoint.

    The message is a single line that says what is wrong and what to do. `jaxplm.main` prints it to
    stderr without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(visible(" ".join(message.split()))))


class Interrupted(Exception):
    """The run was stopped and saved; `status` is the exit status (143 after SIGTERM, 130 after Ctrl-C)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# Control characters, which a terminal obeys; marks that turn the direction of writing; halves of characters.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return a text whose hidden characters, but for tabs and newlines, are written as their codes: `\\u001b`."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(line: str) -> str:
    """Return a line in which no word and not the whole is longer than a person reads; what is left out is counted."""
    line = re.sub(rf"\S{{{_LONGEST_WORD},}}", lambda word: _middle_cut(word[0], _LONGEST_WORD), line)
    return _middle_cut(line, _LONGEST_LINE)


def _middle_cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = most // 2 - 20
    return f"{text[:kept]}…({len(text) - 2 * kept:,} characters)…{text[-kept:]}"


_FULL = (errno.ENOSPC, errno.EDQUOT)
# What a system says about a path that the user or the machine must mend. A file that is not there is not among them: the places
# that read what users name say so themselves, and elsewhere it is a fault of our own.
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP,
                   errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}
# What the libraries below JAX say on the processes that are left: Gloo on CPUs, NCCL on GPUs, the service that joins them.
_PEER_LOST = re.compile(r"Connection (closed|reset) by peer|remote process exited|Socket closed|heartbeat timeout", re.I)


def explain(error: BaseException) -> str | None:
    """Return the one line for an exception that the user or the machine has caused; None for a fault of our own."""
    match error:
        case UserError():
            return str(error)
        case OSError() if error.errno in _FULL:
            return no_space(error.filename)
        case OSError() if error.errno in _OF_THE_MACHINE and error.filename is not None:
            return shortened(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}")
        case MemoryError():
            return f"not enough memory{_detail(error)}; lower train.batch_size, data.seq_len or the size of the model"
    if type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError"):
        if "RESOURCE_EXHAUSTED" in str(error):
            return (f"not enough memory on the device{_detail(error)}; lower train.batch_size or data.seq_len, or set compute.remat or"
                    " train.accumulate")
        if is_of_another_process(error):
            return (f"another process of the run has ended or cannot be reached{_detail(error)}; the same command resumes from the last"
                    " checkpoint")
    return None


def is_of_another_process(error: BaseException) -> bool:
    """Return whether an error says that another process of the run is gone."""
    return type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError") and _PEER_LOST.search(str(error)) is not None


def _detail(error: BaseException) -> str:
    text = shortened(" ".join(str(error).split("\n")[0].split()))
    return f": {text}" if text else ""


def no_space(file: str | bytes | None = None, need: int = 0) -> str:
    """Return the line for a full disk: where, how much is needed if it is known, and how much is free."""
    if file is None:
        return "no disk space: free some on the disk of the workdir, of JAXPLM_CACHE or of the temporary directory"
    path = Path(os.fsdecode(file)).absolute()
    place = next((parent for parent in path.parents if parent.is_dir()), Path("/"))
    wanted = f"{need / 1e6:,.0f} MB are needed and " if need else ""
    return shortened(f"no disk space for {path}: {wanted}{shutil.disk_usage(place).free / 1e6:,.0f} MB are free; free some, or choose"
                     " another place")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean <the nearest of the known names>?" for the end of a message, or "" if none is near."""
    near = difflib.get_close_matches(given, [name for name in known if name and name != given], n=1)
    return f"; did you mean {near[0]}?" if near else ""
