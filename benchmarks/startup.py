"""Measure the time from the command to its first finished training step, as a user starts it.

    python benchmarks/startup.py [--config=configs/dapt.py] [--rounds=3] [--kinds=cold,warm] [--cache=DIR] [--totals] \
        [--set train.batch_size=8 …]

Cold: nothing is cached; the corpus is tokenized and every step is compiled. Warm: the same command again in a new
workdir, with tokens and compiled steps from the cache. The first step is finished when its record is in metrics.jsonl.
The figures are medians over the rounds, cold and warm in turn; each round has an empty cache of its own.

Where the time goes is measured in further starts, one cold and one warm per round: the same command in a process whose
functions are timed. It prints both totals and the seconds of each part, and appends a line of JSON to
benchmarks/results.jsonl.

--totals leaves the timed parts out. --cache=DIR does so too and keeps the cache there, so that a warm start can follow in
another call: --kinds=cold --cache=DIR, then --kinds=warm --cache=DIR.
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
from workers import result_of

ROOT = Path(__file__).parents[1]
KINDS = ("cold", "warm")
# The parts of a start: (module, function in it, name). Time inside an inner part counts there alone.
PARTS = (
    ("jaxplm.main", "parse", "flags and config"),
    ("jaxplm.main", "recipe_of", "imports: JAX, Flax, Orbax"),
    ("jaxplm.recipes.pretrain.model", "start_model", "model read or initialised"),
    ("jaxplm.hf.tokenizer", "_read", "tokenizer, with the import of transformers"),
    ("jaxplm.recipes.pretrain.corpus", "load_corpus", "corpus: rows planned, texts held out"),
    ("jaxplm.data.corpus.tokenize", "tokenize", "corpus: read and tokenized, or the cache opened"),
    ("jaxplm.recipes.finetune.labelled_sets", "read_sets", "labelled rows read"),
    ("jaxplm.recipes.finetune.encoded_sets", "encode_sets", "labelled rows tokenized"),
    ("jaxplm.engine.setup", "TrainSetup.__init__", "state's shapes and the optimizer"),
    ("jaxplm.engine.loop", "Run._first_state", "first state"),
    ("jaxplm.engine.loop", "Run._evaluate", "evaluation at step 0: computed"),
    ("jaxplm.engine.loop", "Run._loop", "first step: computed"),
)
REST = "everything else"
# JAX's own events, by the end of their names; their time within a part counts here alone.
EVENTS = {
    "jaxpr_trace_duration": "traced",
    "jaxpr_to_mlir_module_duration": "lowered",
    "backend_compile_duration": "compiled, or compiled code read from the cache",
}


class Clock:
    """Measures the seconds of the parts of a start. Parts nest, and each second counts once: in the innermost."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.monotonic()
        self._events: list[tuple[float, float]] = []  # (beginning, seconds) of JAX's events, none within another

    def _charge(self) -> None:
        """Add the time since the last call to the part that is open."""
        now = time.monotonic()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, function: Callable, name: str) -> Callable:
        """Return the function with its time counted as the part `name`."""
        @functools.wraps(function)
        def wrapped(*given: Any, **named: Any) -> Any:
            self._charge()
            self._open.append(name)
            try:
                return function(*given, **named)
            finally:
                self._charge()
                self._open.pop()

        return wrapped

    def event(self, event: str, duration_secs: float, **_: Any) -> None:
        """Count JAX's event, which comes at the end of its work; its seconds are taken from the part that is open."""
        name = EVENTS.get(event.rsplit("/", 1)[-1])
        if name is None or threading.current_thread() is not threading.main_thread():
            return
        self._charge()
        began, seconds = self._since - duration_secs, duration_secs
        while self._events and self._events[-1][0] >= began:  # within this one, as of functions that a traced function calls
            seconds -= self._events.pop()[1]
        self._events.append((began, self._since - began))
        self.seconds[self._open[-1]] -= seconds
        self.seconds[name] += seconds

    def report(self) -> dict[str, float]:
        """Return the seconds of each part so far."""
        self._charge()
        return dict(self.seconds)


def worker(arguments: list[str], started: float) -> None:
    """Run the command with its parts timed until its first step, and print a line of JSON.

    Args:
      arguments: of the command.
      started: the parent's time.time() when it started this process.
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
        for module, path, _ in PARTS:
            _replace_imported(module, path)
        return run

    command.recipe_of = imported
    patch(lambda module: module == "jaxplm.main")
    sys.exit(command.main(["jaxplm", *arguments]))


def _wrap(owner: Any, path: str, wrap: Callable[[Callable], Callable]) -> None:
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


def _replace_imported(module: str, path: str) -> None:
    """Put the timed function in the place of the plain one in modules that have it by `from … import`."""
    if "." in path or module not in sys.modules:
        return
    timed = getattr(sys.modules[module], path)
    plain = timed.__wrapped__
    for name, other in list(sys.modules.items()):
        if name.startswith("jaxplm.") and getattr(other, path, None) is plain:
            setattr(other, path, timed)


def _until_first_step(_: Any, clock: Clock, step: int, split: str, __: Any) -> None:
    """Take the place of `MetricLog.write`: end the process at the first training record."""
    if split == "train":
        print("\n" + json.dumps(clock.report()), flush=True)
        os._exit(0)


def command_of(options: argparse.Namespace, workdir: Path) -> list[str]:
    fields = ["train.steps=100", "train.log_every=1", *options.set]
    return [f"--config={options.config}", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]


def seconds_to_first_step(options: argparse.Namespace, workdir: Path, cache: Path) -> float:
    """Start the command, stop it once its first step is done, and return the seconds until then."""
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
    """Return the seconds of each part of a start."""
    command = [sys.executable, __file__, f"--worker={time.time()}", *command_of(options, workdir)]
    return result_of("the timed command", command, _environment(cache) | HUGE_PAGES, ROOT)


def _environment(cache: Path) -> dict[str, str]:
    """Return the environment of a start that has a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return kept | {"JAXPLM_CACHE": str(cache)}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1].startswith("--worker="):
        return worker(sys.argv[2:], float(sys.argv[1].split("=")[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/dapt.py", help="as for jaxplm.main")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default=",".join(KINDS), help="cold, warm, or both")
    parser.add_argument("--cache", help="a directory that keeps the cache")
    parser.add_argument("--totals", action="store_true", help="no parts of the time")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the config")
    options = parser.parse_args()
    if Path(options.config).is_file():
        options.config = str(Path(options.config).resolve())  # the command runs in the repository's root

    kinds = options.kinds.split(",")
    if set(kinds) - set(KINDS):
        parser.error(f"--kinds={options.kinds}: must be of {', '.join(KINDS)}")
    options.totals |= bool(options.cache)
    if options.cache and options.rounds > 1 and "cold" in kinds:
        parser.error(f"--cache={options.cache}: only the first of {options.rounds} rounds would be cold; use --rounds=1")

    record.stopped_by_exit()  # also ends the command that is being timed
    wall: dict[str, list[Any]] = {kind: [] for kind in kinds}  # seconds
    parts: dict[str, list[Any]] = {kind: [] for kind in kinds}  # seconds by part
    for turn in range(options.rounds):
        for measure, results in ((seconds_to_first_step, wall), *(() if options.totals else ((parts_of_start, parts),))):
            with tempfile.TemporaryDirectory() as scratch:
                for kind in kinds:
                    workdir = Path(scratch) / kind / "run"
                    workdir.parent.mkdir()
                    results[kind].append(measure(options, workdir, Path(options.cache or Path(scratch) / "cache").resolve()))
        print(f"round {turn + 1}: " + ", ".join(f"{kind} {wall[kind][-1]:.1f} s" for kind in kinds), flush=True)

    print(f"\n{'seconds to the first finished step':<52}" + "".join(f"{kind:>9}" for kind in kinds))
    print(f"{'the command':<52}" + "".join(f"{statistics.median(wall[kind]):>9.2f}" for kind in kinds))
    if not options.totals:
        medians = {kind: {name: statistics.median(run.get(name, 0.0) for run in parts[kind])
                          for name in dict.fromkeys(name for run in parts[kind] for name in run)} for kind in kinds}
        print("\nin a process whose parts are timed")
        for name in medians[kinds[0]]:
            print(f"  {name:<50}" + "".join(f"{medians[kind].get(name, 0.0):>9.2f}" for kind in kinds))
        print(f"  {'sum':<50}" + "".join(f"{sum(medians[kind].values()):>9.2f}" for kind in kinds))
    record.append("startup", {"config": Path(options.config).name, "seconds": wall, "parts": parts, "load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
