"""Huge pages for the arrays of a run: glibc reads from the environment, when a process starts, whether to ask for them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxplm.devices import stop_signals

_TUNABLE = "glibc.malloc.hugetlb"
_THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")  # options of Python whose value is the next argument


def restart_with_huge_pages() -> None:
    """Start this very command again with glibc asking for huge pages; call it before anything large is imported.

    XLA takes a CPU step's temporary arrays, hundreds of MB, from malloc and gives them back after it. In pages of 4 KB the
    kernel clears and maps all of them again at every step; in pages of 2 MB that costs next to nothing (a fine-tuning step of
    33 M parameters: 187 → 147 ms). The process number stays. Nothing happens where the kernel does not give huge pages on
    demand ("madvise"), or where GLIBC_TUNABLES already says something about them (`glibc.malloc.hugetlb=0` turns this off).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or _TUNABLE in tunables or not _on_demand():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    sys.stdout.flush()
    stop_signals.hold_back()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        stop_signals.end_at_once()  # the run is slower, and otherwise the same


def is_plain_command(argv: Sequence[str]) -> bool:
    """Return whether a process runs `python -m jaxplm.main` or the console script, and no debugger or profiler around it.

    Only such a process can be started again: a debugger or a profiler would be lost.

    Args:
      argv: all arguments of the process, those of Python too, as in `sys.orig_argv`.
    """
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument in _WITH_VALUE:
            next(arguments, None)
        elif argument == "-m":
            return next(arguments, "") == "jaxplm.main"
        elif not argument.startswith("-"):
            return Path(argument).name == "jaxplm"
        elif argument == "-c":
            return False
    return False


def _on_demand() -> bool:
    try:
        return "[madvise]" in _THP.read_text()
    except OSError:
        return False
