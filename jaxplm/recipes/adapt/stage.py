"""One stage of a comparison as a command: `python -m jaxplm.recipes.adapt.stage WORKDIR NAME`.

It runs the stage's ordinary command in this process, with its output in stages/NAME/log.txt, and measures its cost. A stage
that has ended is not run again; one that was stopped resumes. What starts stages (the command `jaxplm --config=adapt`, a
workflow engine) starts exactly this.
"""

import sys

from jaxplm.devices import stop_signals
from jaxplm.devices.huge_pages import restart_with_huge_pages

if __name__ == "__main__" and sys.orig_argv[1:3] == ["-m", "jaxplm.recipes.adapt.stage"]:  # before the imports that take time
    stop_signals.end_at_once()
    restart_with_huge_pages()

import os
import runpy
import signal
import threading
import time
from pathlib import Path

from jaxplm.devices.energy import Energy, measured
from jaxplm.engine import workdir_lock
from jaxplm.errors import UserError, explain
from jaxplm.recipes.adapt import state
from jaxplm.recipes.adapt.kept import remove_what_no_one_reads
from jaxplm.recipes.adapt.plan import Stage, command_of, command_text, read_plan
from jaxplm.version import VERSION

MODULE = "jaxplm.recipes.adapt.stage"
PARENT = "JAXPLM_ADAPT_PARENT"  # process that started this one: when it is gone, the stage saves and ends
CORES = "JAXPLM_ADAPT_CORES"  # "0,2": those that this stage may use; empty: all
_WAIT_SECONDS = 60.0  # for an earlier process of this stage, which saves and ends when its parent is gone
_BEAT_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Run the stage that the arguments name, and return the exit status of its command."""
    if len(argv) != 3:
        print(f"usage: python -m {MODULE} WORKDIR NAME", file=sys.stderr)
        return 2
    if cores := os.environ.get(CORES):
        os.sched_setaffinity(0, map(int, cores.split(",")))  # before XLA starts its threads
    try:
        return run(Path(argv[1]), argv[2])
    except Exception as error:
        if line := explain(error):
            print(f"jaxplm: {line}", file=sys.stderr)
            return 2
        raise


def run(workdir: Path, name: str) -> int:
    """Run a stage of the plan in `workdir`; return the exit status of its command.

    Raises:
      UserError: there is no such plan or stage, a stage before it has not ended, or another process runs it.
    """
    try:
        plan = read_plan(workdir)
    except OSError:
        raise UserError(f"{workdir} has no plan: start the comparison by jaxplm --config=adapt --workdir={workdir}") from None
    names = [stage.name for stage in plan.stages]
    if name not in names:
        raise UserError(f"{workdir} has no stage {name}; there are {', '.join(names)}")
    stage = plan[name]
    if missing := [need for need in stage.needs if state.read_ended(workdir, plan[need]) is None]:
        raise UserError(f"stage {name} needs {missing[0]}, which has not ended: run that first")
    rate = state.chosen_rate(stage, plan, workdir)
    inputs = state.inputs_of(stage, plan, workdir, rate)
    _wait_for_lock(workdir / stage.place)
    prepare(stage, workdir, inputs)
    if state.look(stage, workdir, inputs).state == "ended":
        remove_what_no_one_reads(stage, workdir / stage.place)  # if it was killed before it did
        print(f"{name}: has ended before", flush=True)
        return 0
    return _Attempt(stage, workdir, inputs, rate).run()


def prepare(stage: Stage, workdir: Path, inputs: dict) -> None:
    """Move what was made from other inputs out of the stage's workdir, and say so."""
    found = state.look(stage, workdir, inputs)
    if found.state == "other":
        place = state.set_aside(stage, workdir)
        print(f"{stage.name}: {'; '.join(described(found.changes))}; what there was is kept in {place}", flush=True)
    if state.take_back(stage, workdir, inputs):
        print(f"{stage.name}: was made from the same before: taken back from {state.ASIDE}", flush=True)


def described(changes: tuple, most: int = 3) -> list[str]:
    """Return what has changed, a phrase each: "train.steps 100 → 200", "the content of data.train", "stage dapt"."""
    phrases = []
    for what, old, new in changes[:most]:
        if what.startswith("stage "):
            phrases.append(f"{what} is another one")
        else:
            phrases.append(f"the {what} has changed" if what.startswith("content of ") else f"{what} {old} → {new}")
    return phrases + ([f"and {len(changes) - most} more"] if len(changes) > most else [])


def _wait_for_lock(place: Path) -> None:
    """Return when no other process runs the stage.

    Raises:
      UserError: one still does after a minute.
    """
    until = time.monotonic() + _WAIT_SECONDS
    while (place / workdir_lock.NAME).exists():
        try:
            with workdir_lock.held(place):
                return
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


class _Attempt:
    """One process that runs a stage, from its start or from where an earlier one was stopped."""

    def __init__(self, stage: Stage, workdir: Path, inputs: dict, rate: float | None) -> None:
        self._stage, self._place = stage, workdir / stage.place
        self._arguments = command_of(stage, workdir, rate)
        earlier = state.read_started(workdir, stage) or {}
        self._earlier = {name: earlier.get(name) for name in ("seconds", "joules")}
        self._note = {"inputs": inputs, "command": command_text(self._arguments), "learning_rate": rate} | self._earlier
        self._energy: Energy | None = None
        self._began = time.monotonic()

    def run(self) -> int:
        self._place.mkdir(parents=True, exist_ok=True)
        self._save()
        print(f"{self._stage.name}: {self._note['command']}", flush=True)
        ending = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ending,), name="stage", daemon=True)
        watch.start()
        try:
            with measured() as self._energy, _OutputTo(self._place / state.LOG):
                status = _run_command(self._arguments)
        finally:
            ending.set()
            watch.join()
        self._note["hardware"] = _hardware()
        self._save()
        if status == 0:
            state.write(self._place / state.ENDED, self._note)
            remove_what_no_one_reads(self._stage, self._place)
        print(f"{self._stage.name}: {'has ended' if status == 0 else f'exit status {status}, see {self._place / state.LOG}'}", flush=True)
        return status

    def _save(self) -> None:
        """Write what is known so far: a process that is killed leaves what it has cost."""
        self._note["seconds"] = round((self._earlier["seconds"] or 0.0) + time.monotonic() - self._began, 1)
        if self._energy and (joules := self._energy.joules) is not None:
            self._note["joules"] = round((self._earlier["joules"] or 0.0) + joules, 1)
        state.write(self._place / state.STARTED, self._note)

    def _watch(self, ending: threading.Event) -> None:
        """Keep the time that the stage has taken, and end it where the process that started it is gone."""
        parent = os.environ.get(PARENT)
        while not ending.wait(_BEAT_SECONDS):
            self._save()
            if parent and os.getppid() != int(parent):
                os.kill(os.getpid(), signal.SIGTERM)
                parent = None


class _OutputTo:
    """A context in which everything that this process and its libraries print goes to the end of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._kept = [os.dup(number) for number in (1, 2)]
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        os.close(file)

    def __exit__(self, *exception: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in zip((1, 2), self._kept, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def _hardware() -> str:
    """Return what the command ran on, "2 × NVIDIA H100", where it has started JAX."""
    if (jax := sys.modules.get("jax")) is None:
        return ""
    return f"{jax.device_count()} × {jax.devices()[0].device_kind} ({os.cpu_count()} cores), JAX {jax.__version__}, jaxplm {VERSION}"


def _run_command(arguments: list[str]) -> int:
    """Run `python -m jaxplm.main` with these arguments in this process; return its exit status."""
    sys.argv = ["jaxplm", *arguments]
    try:
        runpy.run_module("jaxplm.main", run_name="__main__", alter_sys=True)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except Exception:  # a fault of our own: its traceback belongs to the log of the stage
        import traceback

        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
