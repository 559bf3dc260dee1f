"""Run the stages of a comparison on this machine, each in a process of its own, some at a time."""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxplm.errors import Interrupted
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.plan import Plan, Stage, command_of, command_text
from jaxplm.recipes.adapt.stage import CORES, MODULE, PARENT
from jaxplm.reporting.numbers import duration

log = logging.getLogger("jaxplm")

GPU = Path("/dev/nvidiactl")  # NVIDIA's driver is loaded
_POLL_SECONDS = 0.2
_ASKED_EVERY = 10.0  # seconds: a run that is about to begin with its next seed may miss a signal
_SAVING_SECONDS = 180.0  # after which a stage that was asked to stop is killed: its last checkpoint is on disk


def start_process(workdir: Path, name: str, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a stage; see `jaxplm.recipes.adapt.stage`."""
    # A session of its own: Ctrl-C on the terminal reaches this process alone, which asks the stages to stop.
    return subprocess.Popen([sys.executable, "-m", MODULE, str(workdir), name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env=environment, start_new_session=True)


class LocalEngine:
    """Starts each stage when those that it needs have ended.

    A failed stage is named, those that need it are left out, and the others are run.

    Args:
      parallel: stages at a time.
      seconds_left: of the whole graph, from the stages that have ended and how far the running ones are; None: not known yet.
    """

    def __init__(self, plan: Plan, workdir: Path, parallel: int, seconds_left: Callable[[], float | None]) -> None:
        self._plan, self._workdir, self._parallel, self._seconds_left = plan, workdir, parallel, seconds_left
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._cores = _shares_of_cores(parallel)
        self._core_of: dict[str, int] = {}  # stage → its place in `_cores`
        # Those that most others wait for come first, else the last way would run alone at the end.
        self._order = sorted(plan.stages, key=lambda stage: -len(list(plan.dependents(stage.name))))
        self._done: set[str] = set()
        self._failed: set[str] = set()

    def run(self) -> None:
        """Run all stages that have not ended.

        Raises:
          Interrupted: by Ctrl-C or SIGTERM, after the running stages have saved.
        """
        try:
            while self._start_ready() or self._running:
                self._end_some()
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt as stopped:
            self._stop(stopped)
        finally:
            for process in self._running.values():
                process.kill()

    def _start_ready(self) -> bool:
        """Start stages whose needs are met, as many as there is room for; return whether any was started or found ended."""
        started = False
        for stage in self._order:
            name = stage.name
            if name in self._done or name in self._failed or name in self._running or not self._done.issuperset(stage.needs):
                continue
            if len(self._running) >= self._parallel:
                break
            rate = state.chosen_rate(stage, self._plan, self._workdir)
            if state.look(stage, self._workdir, state.inputs_of(stage, self._plan, self._workdir, rate)).state == "ended":
                self._done.add(name)
                self._say(f"{name}: has ended before")
            else:
                self._start(stage, rate)
            started = True
        return started

    def _start(self, stage: Stage, rate: float | None) -> None:
        self._say(f"{stage.name}: {command_text(command_of(stage, self._workdir, rate))}")
        memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if self._parallel > 1 else {}  # else the first one takes most of a GPU's
        free = next(place for place in range(self._parallel) if place not in self._core_of.values())
        self._core_of[stage.name] = free
        environment = memory | os.environ | {PARENT: str(os.getpid()), CORES: self._cores[free]}
        self._running[stage.name] = start_process(self._workdir, stage.name, environment)

    def _end_some(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name], self._core_of[name]
            said = [line for line in process.communicate()[0].decode(errors="replace").splitlines() if line]
            if process.returncode == 0:
                self._done.add(name)
                ended = state.read_ended(self._workdir, self._plan[name])
                self._say(f"{name}: ended" + (f" in {duration(ended['seconds'])}" if ended else ""))
            else:
                self._failed.add(name)
                log.warning("stage %s failed (exit status %s): %s", name, process.returncode,
                            failure_line(self._workdir, self._plan[name]) or (said[-1] if said else "no output"))
                if left_out := list(self._plan.dependents(name)):
                    log.warning("not run, because they need it: %s", ", ".join(left_out))

    def _say(self, text: str) -> None:
        left = self._seconds_left()
        log.info("[%d/%d] %s%s", len(self._done), len(self._plan.stages), text, "" if left is None else f"; about {duration(left)} left")

    def _stop(self, stopped: KeyboardInterrupt) -> None:
        """Ask the running stages to save and end, and wait for them.

        Raises:
          Interrupted: always.
        """
        from jaxplm.devices.stop_signals import describe

        line, status = describe(stopped)
        log.info("%s: the running stages save and end", line)
        began = time.monotonic()
        asked = -math.inf
        while running := [process for process in self._running.values() if process.poll() is None]:
            now = time.monotonic() - began
            if now > _SAVING_SECONDS:
                break
            if now - asked >= _ASKED_EVERY:
                asked = now
                for process in running:
                    process.send_signal(signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        raise Interrupted(status, f"{line}; {len(self._done)} of {len(self._plan.stages)} stages have ended: the same command resumes")


def _shares_of_cores(parallel: int) -> list[str]:
    """Return the cores of each of the stages that run at a time, "0,2", or "" for all of them.

    On a CPU each stage gets cores of its own, as many as every other, so that it does not matter to the result which ones: XLA divides
    its work by the number of threads. Two runs that shared two cores trained at 1,800 to 3,000 tokens/s each, with a core of their own
    at 2,800 to 3,100. Stages that compute on a GPU share all cores, which they need for compiling.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if parallel == 1 or len(cores) < parallel or GPU.exists():
        return [""] * parallel
    each = len(cores) // parallel
    return [",".join(map(str, cores[place::parallel][:each])) for place in range(parallel)]


def failure_line(workdir: Path, stage: Stage) -> str:
    """Return the last line of a stage's log; empty where it has none."""
    try:
        with (workdir / stage.place / state.LOG).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
