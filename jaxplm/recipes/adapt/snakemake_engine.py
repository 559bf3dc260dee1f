"""Have Snakemake run the stages of a comparison: on this machine, or by a profile on a cluster."""

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxplm.data import atomic
from jaxplm.devices.stop_signals import describe
from jaxplm.errors import Interrupted, UserError
from jaxplm.recipes.adapt import snakemake_process, state
from jaxplm.recipes.adapt.local import failure_line
from jaxplm.recipes.adapt.plan import Plan
from jaxplm.recipes.adapt.snakefile import FILE, snakefile
from jaxplm.recipes.adapt.stage import prepare
from jaxplm.reporting.numbers import duration

log = logging.getLogger("jaxplm")

OUTPUT = "snakemake.log"
_POLL_SECONDS = 0.5


def require_snakemake(profile: str) -> None:
    """Raise a `UserError` where Snakemake is not installed, or the profile is not there."""
    if importlib.util.find_spec("snakemake") is None:
        raise UserError("adapt.engine=snakemake: Snakemake is not installed: pip install 'jaxplm[snakemake]'")
    if profile and not any(Path(profile).glob("config*.yaml")):
        raise UserError(f"adapt.profile={profile}: must be a directory with a config.yaml or config.v8+.yaml of Snakemake, such as"
                        " launch/snakemake-slurm")


def command(workdir: Path, parallel: int, profile: str) -> list[str]:
    """Return the command of Snakemake for the Snakefile in `workdir`; see `SnakemakeEngine`."""
    place = ["--profile", str(Path(profile).absolute()), "--jobs"] if profile else ["--cores"]
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str((workdir / FILE).absolute()), "--directory", str(workdir.absolute()),
        *place, str(parallel), "--keep-going", "--scheduler", "greedy",
        # What a stage is made from is compared by the stage. Snakemake runs what is missing and what follows from that.
        "--rerun-triggers", "mtime", "--rerun-incomplete",
        "--nolock",  # this process holds the workdir; a lock of Snakemake's would stay after a kill
    ]


class SnakemakeEngine:
    """Writes `WORKDIR/Snakefile` and runs it; see `require_snakemake`. A failed stage is named, and what does not need it is run.

    Args:
      parallel: stages at a time.
      profile: directory of a Snakemake profile; empty: this machine.
      seconds_left: as of `jaxplm.recipes.adapt.local.LocalEngine`.
    """

    def __init__(self, plan: Plan, workdir: Path, parallel: int, profile: str, seconds_left: Callable[[], float | None]) -> None:
        self._plan, self._workdir, self._parallel, self._profile = plan, workdir, parallel, profile
        self._seconds_left = seconds_left
        self._done: set[str] = set()

    def run(self) -> None:
        """Run all stages that have not ended.

        Raises:
          UserError: Snakemake cannot be started, or says that it cannot use the profile.
          Interrupted: by Ctrl-C or SIGTERM, after the running stages have saved.
        """
        atomic.write_text(self._workdir / FILE, snakefile(self._plan, self._workdir, sys.executable, Path.cwd()))
        self._sort_out()
        if len(self._done) == len(self._plan.stages):
            return
        log.info("Snakemake runs %s; its output: %s", self._workdir / FILE, self._workdir / OUTPUT)
        began = time.time()
        with (self._workdir / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", snakemake_process.MODULE, str(os.getpid()), *command(self._workdir, self._parallel, self._profile)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                while process.poll() is None:
                    self._say_ended()
                    time.sleep(_POLL_SECONDS)
                self._say_ended()
            except KeyboardInterrupt as stopped:
                self._stop(process, stopped)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
        self._say_failed(process.returncode, began)

    def _sort_out(self) -> None:
        """Move what was made from something else out of the way, so that Snakemake finds it missing.

        What has ended is given times in the order of the stages: Snakemake runs a stage again that is older than what it needs.
        """
        for stage in self._plan.stages:
            if not self._done.issuperset(stage.needs):
                continue  # its own process looks at it, when those have ended
            inputs = state.inputs_of(stage, self._plan, self._workdir, state.chosen_rate(stage, self._plan, self._workdir))
            prepare(stage, self._workdir, inputs)
            if state.look(stage, self._workdir, inputs).state == "ended":
                os.utime(self._workdir / stage.place / state.ENDED)
                self._done.add(stage.name)
                self._say(f"{stage.name}: has ended before")

    def _say_ended(self) -> None:
        """Name the stages that have ended since the last call."""
        for stage in self._plan.stages:
            path = self._workdir / stage.place / state.ENDED
            if stage.name not in self._done and path.exists() and self._is_new(path) and (ended := state.read_ended(self._workdir, stage)):
                self._done.add(stage.name)
                self._say(f"{stage.name}: ended in {duration(ended['seconds'])}")

    def _is_new(self, path: Path) -> bool:
        """Return whether a stage.json was written since the Snakefile was: one that was there before is removed when its turn comes."""
        try:
            return path.stat().st_mtime_ns > (self._workdir / FILE).stat().st_mtime_ns
        except OSError:
            return False

    def _say(self, text: str) -> None:
        left = self._seconds_left()
        log.info("[%d/%d] %s%s", len(self._done), len(self._plan.stages), text, "" if left is None else f"; about {duration(left)} left")

    def _say_failed(self, status: int, began: float) -> None:
        """Name the stages that have failed.

        Raises:
          UserError: Snakemake has failed, and no stage.
        """
        failed = []
        for stage in self._plan.stages:
            path = self._workdir / stage.place / state.LOG
            if stage.name not in self._done and path.exists() and path.stat().st_mtime >= began - 1:
                failed.append(stage.name)
                log.warning("stage %s failed: %s", stage.name, failure_line(self._workdir, stage) or "no output")
                if left_out := list(self._plan.dependents(stage.name)):
                    log.warning("not run, because they need it: %s", ", ".join(left_out))
        if status and not failed:
            said = [line.strip() for line in (self._workdir / OUTPUT).read_text("utf-8", "replace").splitlines() if line.strip()]
            raise UserError(f"Snakemake failed (exit status {status}): {said[-1] if said else 'no output'}; all of its output is in"
                            f" {self._workdir / OUTPUT}")

    def _stop(self, process: subprocess.Popen[bytes], stopped: KeyboardInterrupt) -> None:
        """Stop Snakemake and its stages.

        Raises:
          Interrupted: always.
        """
        line, status = describe(stopped)
        log.info("%s: the running stages save and end", line)
        process.send_signal(signal.SIGTERM)
        process.wait(snakemake_process.SAVING_SECONDS + 30)
        self._say_ended()
        raise Interrupted(status, f"{line}; {len(self._done)} of {len(self._plan.stages)} stages have ended: the same command resumes")
