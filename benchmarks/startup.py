"""From the command to its first finished training step, as a user starts it.

    python benchmarks/startup.py [--config=configs/dapt.py] [--rounds=3] [--set train.batch_size=8 …]

Cold: nothing is cached, the corpus is tokenized and every step compiled. Warm: the same command again in a new workdir,
tokens and compiled steps from the cache. The first step counts as finished when its row stands in metrics.jsonl. Medians
over the rounds, cold and warm in turn, each round with an empty cache of its own.

Where the time goes is measured in further starts, one cold and one warm a round: the same command in a process whose
functions are timed. A line of JSON with all figures is appended to benchmarks/results.jsonl.
"""

import argparse
import functools
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
from allocation import HUGE_PAGES

ROOT = Path(__file__).parents[1]
KINDS = ("cold", "warm")
# The parts of a start: (module, function in it, name). Time inside an inner part counts there alone.
PARTS = (
    ("jaxplm.main", "parse", "flags and config"),
    ("jaxplm.main", "_recipe", "imports: JAX, Flax, Orbax"),
    ("jaxplm.recipes.pretrain.model", "start_model", "model read or drawn"),
    ("jaxplm.hf.tokenizer", "_read", "tokenizer, with the import of transformers"),
    ("jaxplm.recipes.pretrain.model", "load_corpus", "corpus: rows planned, texts held out"),
    ("jaxplm.recipes.pretrain.model", "tokenize", "corpus: read and tokenized, or the cache opened"),
    ("jaxplm.recipes.finetune.labelled_sets", "read_sets", "labelled rows read"),
    ("jaxplm.recipes.finetune.encoded_sets", "encode_sets", "labelled rows tokenized"),
    ("jaxplm.engine.loop", "Run.__init__", "state's shapes and the optimizer"),
    ("jaxplm.engine.loop", "Run._first_state", "first state"),
    ("jaxplm.engine.loop", "Run._evaluate", "evaluation at step 0: computed"),
    ("jaxplm.engine.loop", "Run._loop", "first step: computed"),
)
REST = "the rest"
# What JAX tells of its own work, by the end of the event's name; within a part it counts here alone.
EVENTS = {
    "jaxpr_trace_duration": "traced",
    "jaxpr_to_mlir_module_duration": "lowered",
    "backend_compile_duration": "compiled, or compiled code read from the cache",
}


class Clock:
    """Seconds by part of a start. Parts nest, and each second counts once: in the innermost."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.monotonic()
        self._told: list[tuple[float, float]] = []  # (beginning, seconds) of JAX's events, none within another

    def _settle(self) -> None:
        now = time.monotonic()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, function: Callable, name: str) -> Callable:
        @functools.wraps(function)
        def wrapped(*given: Any, **named: Any) -> Any:
            self._settle()
            self._open.append(name)
            try:
                return function(*given, **named)
            finally:
                self._settle()
                self._open.pop()

        return wrapped

    def event(self, event: str, duration_secs: float, **_: Any) -> None:
        """What JAX tells when a piece of work is done; its seconds are taken from the part that is open."""
        name = EVENTS.get(event.rsplit("/", 1)[-1])
        if name is None or threading.current_thread() is not threading.main_thread():
            return
        self._settle()
        began, seconds = self._since - duration_secs, duration_secs
        while self._told and self._told[-1][0] >= began:  # done within this one, as functions that a traced function calls
            seconds -= self._told.pop()[1]
        self._told.append((began, self._since - began))
        self.seconds[self._open[-1]] -= seconds
        self.seconds[name] += seconds

    def report(self) -> dict[str, float]:
        self._settle()
        return dict(self.seconds)


def worker(arguments: list[str], started: float) -> None:
    """The command with its parts timed; ends after the first step and prints a line of JSON.

    `started`: time.time() of the parent when it started this process.
    """
    from jaxplm import main as command
    from jaxplm.devices.without_torch import import_transformers

    import_transformers()
    clock = Clock()
    clock.seconds["Python and the command's first imports"] = time.time() - started
    recipe = command.recipe_of

    def patch(wanted: Callable[[str], bool]) -> None:
        for module, path, name in PARTS:
            if wanted(module):
                _wrap(importlib.import_module(module), path, lambda function, name=name: clock.timed(function, name))

    def imported(name: str) -> Any:
        import jax

        jax.monitoring.register_event_duration_secs_listener(clock.event)
        run = recipe(name)
        importlib.import_module("jaxplm.reporting.metric_log").MetricLog.write = functools.partialmethod(_until_first_step, clock)
        patch(lambda module: module != "jaxplm.main" and module in sys.modules)
        for module, path, _ in PARTS:  # names that other modules have taken over by `from … import`
            _hand_on(module, path)
        return run

    command.recipe_of = imported
    patch(lambda module: module == "jaxplm.main")
    sys.exit(command.main(["jaxplm", *arguments]))


def _wrap(owner: Any, path: str, wrap: Callable[[Callable], Callable]) -> None:
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


def _hand_on(module: str, path: str) -> None:
    if "." in path or module not in sys.modules:
        return
    timed = getattr(sys.modules[module], path)
    plain = timed.__wrapped__
    for name, other in list(sys.modules.items()):
        if name.startswith("jaxplm.") and getattr(other, path, None) is plain:
            setattr(other, path, timed)


def _until_first_step(_: Any, clock: Clock, step: int, split: str, __: Any) -> None:
    """In the place of `MetricLog.write`: ends the process with the first training row."""
    if split == "train":
        print("\n" + json.dumps(clock.report()), flush=True)
        os._exit(0)


def command_of(options: argparse.Namespace, workdir: Path) -> list[str]:
    fields = ["train.steps=100", "train.log_every=1", *options.set]
    return [f"--config={options.config}", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]


def seconds_to_first_step(options: argparse.Namespace, workdir: Path, cache: Path) -> float:
    """Starts the command and stops it once its first step is done."""
    began = time.monotonic()
    with (workdir.parent / "log").open("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", "jaxplm.main", *command_of(options, workdir)], cwd=ROOT, stdout=log,
                                   stderr=subprocess.STDOUT, env=_environment(cache))
        try:
            while not _first_step_done(workdir / "metrics.jsonl"):
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"the command failed:\n{log.read()}")
                time.sleep(0.01)
            return time.monotonic() - began
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _first_step_done(metrics: Path) -> bool:
    return metrics.exists() and '"split": "train"' in metrics.read_text()


def parts_of_start(options: argparse.Namespace, workdir: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, __file__, f"--worker={time.time()}", *command_of(options, workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment(cache) | HUGE_PAGES)
    if done.returncode:
        sys.exit(f"the timed command failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _environment(cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return kept | {"JAXPLM_CACHE": str(cache)}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("--worker="):
        return worker(sys.argv[2:], float(sys.argv[1].split("=")[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/dapt.py", help="as for jaxplm.main")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the config")
    options = parser.parse_args()
    if Path(options.config).is_file():
        options.config = str(Path(options.config).resolve())  # the command runs in the repository's root

    wall: dict[str, list[Any]] = {kind: [] for kind in KINDS}  # seconds
    parts: dict[str, list[Any]] = {kind: [] for kind in KINDS}  # seconds by part
    for turn in range(options.rounds):
        for measure, found in ((seconds_to_first_step, wall), (parts_of_start, parts)):
            with tempfile.TemporaryDirectory() as scratch:
                for kind in KINDS:
                    workdir = Path(scratch) / kind / "run"
                    workdir.parent.mkdir()
                    found[kind].append(measure(options, workdir, Path(scratch) / "cache"))
        print(f"round {turn + 1}: " + ", ".join(f"{kind} {wall[kind][-1]:.1f} s" for kind in KINDS), flush=True)

    medians = {kind: {name: statistics.median(run.get(name, 0.0) for run in parts[kind])
                      for name in dict.fromkeys(name for run in parts[kind] for name in run)} for kind in KINDS}
    print(f"\n{'seconds to the first finished step':<52}" + "".join(f"{kind:>9}" for kind in KINDS))
    print(f"{'the command':<52}" + "".join(f"{statistics.median(wall[kind]):>9.2f}" for kind in KINDS))
    print("\nin a process whose parts are timed")
    for name in medians["cold"]:
        print(f"  {name:<50}" + "".join(f"{medians[kind].get(name, 0.0):>9.2f}" for kind in KINDS))
    print(f"  {'together':<50}" + "".join(f"{sum(medians[kind].values()):>9.2f}" for kind in KINDS))
    record.append("startup", {"config": Path(options.config).name, "seconds": wall, "parts": parts, "load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
