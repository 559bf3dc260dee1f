"""Measure the input pipeline alone: tokens per second into the store, and batches per second out of it.

    python benchmarks/data_rate.py --model=DIR --corpus=FILE [--length=512] [--rows=64] [--rounds=3]

It prints three tables:

1. A corpus is read, tokenized and written to the memory-mapped store: as it is given, and `--times` as large (its texts
   repeated, each time after another first word, in a temporary file). The peak of resident memory should not grow.
2. Batches of masked language modelling from that store, for both packings, single tokens and whole words: as training
   takes them, from the thread that prepares them; then each part of preparing a batch alone.
3. Batches of a classification task, `--task`.

Each store is written in a process of its own, the batches are prepared in another. CPU seconds are those of all
threads. Figures are medians over `--rounds`. `--step_rate` is what the fastest training step takes; twice that is the
target. A line of JSON with all figures is appended to benchmarks/results.jsonl.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
from workers import result_of

from jaxplm.config import Packing

PACKINGS: tuple[Packing, ...] = ("documents", "stream")
WARM_UP = 3
MB = 1 << 20


# ---------------------------------------------------------------- tokenization


def store_worker(options: argparse.Namespace) -> dict[str, Any]:
    """Tokenize a corpus, then plan rows and prepare batches; return times and memory."""
    import numpy as np

    from jaxplm import hf
    from jaxplm.config import Config, Data, Train
    from jaxplm.recipes.pretrain.corpus import CorpusReader

    tokenizer = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    config = Config(data=Data(train=options.corpus, seq_len=options.length), train=Train(batch_size=options.rows))
    reader = CorpusReader(config, tokenizer, np.arange(options.rows))
    before, wall, cpu = _peak(), time.perf_counter(), _cpu()
    store = reader.store(options.corpus)
    wall, cpu, peak = time.perf_counter() - wall, _cpu() - cpu, _peak()
    batches = reader.training(reader.plan(store))
    for step in range(WARM_UP + 100):
        batches.batch(step)
    return {"texts": store.meta["texts"], "tokens": store.meta["tokens"], "seconds": wall, "cpu_seconds": cpu,
            "peak_mb_before": before, "peak_mb": peak, "peak_mb_with_batches": _peak(), **_resident()}


def write_times(corpus: str, times: int, path: Path) -> None:
    """Write the texts of a corpus `times` times as JSON lines, each time after a different word."""
    from jaxplm.data.sources.texts import open_texts

    with path.open("w") as file:
        for turn in range(times):
            for text in open_texts(corpus):
                file.write(json.dumps({"text": f"{turn} {text}"}, ensure_ascii=False) + "\n")


def _cpu() -> float:
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def _peak() -> float:
    """Return the highest resident MB of this process, or of a child if that had more; mapped files are counted."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (MB if sys.platform == "darwin" else 1024)


def _resident() -> dict[str, float]:
    """Return the resident MB of the process's own pages and of mapped files, which the kernel may drop."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    status = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return {f"resident_{kind}_mb": int(status[key].split()[0]) / 1024 for kind, key in (("own", "RssAnon"), ("mapped", "RssFile"))}


# ---------------------------------------------------------------- batches


def batches_worker(options: argparse.Namespace) -> dict[str, Any]:
    return {"mlm": _mlm(options), "classification": _classification(options)}


def _mlm(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    rates: dict[str, dict[str, float]] = {}
    for packing in PACKINGS:
        for whole_word in (False, True):
            tokens_per_row, functions = _mlm_steps(options, packing, whole_word)
            for name, prepare in functions.items():
                rates[name] = _rates(prepare, options, rows=options.rows, tokens=options.rows * tokens_per_row)
    return rates


def _mlm_steps(options: argparse.Namespace, packing: Packing, whole_word: bool) -> tuple[float, dict[str, Callable[[int], Any]]]:
    """Return the mean tokens per row, and {name: function that prepares a step's batch or does a part of that}."""
    import numpy as np

    from jaxplm import hf
    from jaxplm.config import Config, Data, Mesh, Train
    from jaxplm.data.mlm.mask import capacity, mask_rows
    from jaxplm.devices import sharding
    from jaxplm.recipes.pretrain.corpus import CorpusReader

    tokenizer = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    data = Data(train=options.corpus, seq_len=options.length, packing=packing, whole_word=whole_word)
    reader = CorpusReader(Config(data=data, train=Train(batch_size=options.rows)), tokenizer, np.arange(options.rows))
    plan = reader.plan(reader.store(options.corpus))
    batches = reader.training(plan)
    masking = reader.masking
    mesh = sharding.make_mesh(Mesh())
    row_ids = [batches.rows_of_step(step) for step in range(64)]
    rows = [plan.gather(row_ids[step], masking.special, batches.draws_of_step(step)) for step in range(8)]
    num_masked = capacity(data.mask_rate, options.length)

    def gather(step: int) -> Any:
        return plan.gather(row_ids[step % len(row_ids)], masking.special, batches.draws_of_step(step))

    def mask(step: int) -> Any:
        return mask_rows(rows[step % len(rows)], masking, data.mask_rate, num_masked, batches.draws_of_step(step))

    name = f"{packing}, {'whole words' if whole_word else 'single tokens'}"
    return plan.real_tokens / plan.rows, {
        name: batches.batch,
        f"{name}, put on the device": lambda step: sharding.put_batch(batches.batch(step), options.rows, mesh),
        f"{name}: gathering rows alone": gather,
        f"{name}: masking alone": mask,
    }


def _classification(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    from jaxplm import hf
    from jaxplm.config import Config, Data, Task
    from jaxplm.data.labelled.task_batches import ShuffledRows, TrainBatches, task_batch
    from jaxplm.recipes.finetune.labelled_sets import read_sets

    config = Config(recipe="finetune", data=Data(train=options.task, text=options.text, label=options.label, seq_len=options.task_length),
                    task=Task(kind="classify"))
    tokenizer: Any = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    sets = read_sets(config)
    encoded = sets.kind.encode(sets.train, tokenizer, options.task_length, config.task.overlap)
    targets = sets.kind.targets(sets.train, encoded, sets.labels)
    rows = ShuffledRows(encoded.lengths, options.task_batch, options.task_length, seed=0)
    batches = TrainBatches(rows, functools.partial(task_batch, encoded, targets, tokenizer.pad_token_id))
    rates = _rates(batches.batch, options, rows=rows.rows_per_step, tokens=rows.real_tokens / rows.rows * rows.rows_per_step)
    rates["texts_per_second"] = rates["rows_per_second"] * rows.units_per_step / rows.rows_per_step
    return {f"texts in rows of {options.task_length}, {options.task_batch} texts per step": rates}


def _rates(prepare: Callable[[int], Any], options: argparse.Namespace, *, rows: int, tokens: float) -> dict[str, float]:
    """Return rows and tokens per second of what `prepare` returns for a step, and the CPU cores that it keeps busy.

    Args:
      prepare: returns a step's batch; it is called in the thread that prepares batches in training.
      rows: per batch.
      tokens: per batch, without padding.
    """
    from jaxplm.data.prefetch import prefetch

    steps = WARM_UP
    while True:  # find how many steps take `--seconds`
        began = time.perf_counter()
        for _ in prefetch(prepare, 0, steps):
            pass
        taken = time.perf_counter() - began
        if taken > options.seconds / 4:
            break
        steps *= 2
    steps = max(WARM_UP, round(steps * options.seconds / taken))
    walls, cpus = [], []
    for turn in range(options.rounds):
        began, used = time.perf_counter(), time.process_time()
        for _ in prefetch(prepare, turn * steps, (turn + 1) * steps):
            pass
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - used)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return {"rows_per_second": steps * rows / wall, "tokens_per_second": steps * tokens / wall,
            "tokens_per_core_second": steps * tokens / cpu, "cores": cpu / wall, "batch_ms": 1000 * wall / steps}


# ---------------------------------------------------------------- the command


def run_worker(kind: str, options: argparse.Namespace, corpus: str, cache: Path) -> dict[str, Any]:
    """Run one part in a process of its own, with a cache of its own; return its figures."""
    given = [f"--{name}={value}" for name, value in vars(options).items() if name not in ("worker", "corpus")]
    return result_of(kind, [sys.executable, __file__, *given, f"--corpus={corpus}", f"--worker={kind}"],
                     os.environ | {"JAXPLM_CACHE": str(cache), "JAX_PLATFORMS": "cpu"})


def show_stores(stores: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table of tokenization."""
    print(f"\n{'tokenization':<16}{'tokens':>13}{'tokens/s':>12}{'per core':>12}{'cores':>7}{'peak MB':>9}{'before':>8}"
          f"{'with batches':>14}{'of it mapped':>14}")
    for name, runs in stores.items():
        def of(key: str, runs: list[dict[str, Any]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        mapped = of("resident_mapped_mb") if "resident_mapped_mb" in runs[0] else float("nan")  # known on Linux only
        print(f"{name:<16}{of('tokens'):>13,.0f}{of('tokens') / of('seconds'):>12,.0f}{of('tokens') / of('cpu_seconds'):>12,.0f}"
              f"{of('cpu_seconds') / of('seconds'):>7.2f}{of('peak_mb'):>9,.0f}{of('peak_mb_before'):>8,.0f}"
              f"{of('peak_mb_with_batches'):>14,.0f}{mapped:>14,.0f}")


def show_batches(batches: dict[str, dict[str, dict[str, float]]], step_rate: float) -> None:
    """Print the tables of batches."""
    for title, rates in batches.items():
        print(f"\n{title:<46}{'rows/s':>10}{'tokens/s':>13}{'per core':>13}{'cores':>7}{'ms/batch':>12}{'× a step':>10}")
        for name, rate in rates.items():
            print(f"{name:<46}{rate['rows_per_second']:>10,.0f}{rate['tokens_per_second']:>13,.0f}{rate['tokens_per_core_second']:>13,.0f}"
                  f"{rate['cores']:>7.2f}{rate['batch_ms']:>12.2f}{rate['tokens_per_second'] / step_rate:>9.1f}×")
    print(f"\n× a step: divided by the {step_rate:,.0f} tokens/s that a training step takes; the target is 2.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory in transformers' format; its tokenizer is used")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--times", type=int, default=10, help="how many times as large the second corpus is; 0: none")
    parser.add_argument("--task", default="builtin:pydocs-labels", help="labelled texts")
    parser.add_argument("--text", default="text", help="column of the task's texts")
    parser.add_argument("--label", default="label", help="column of the task's labels")
    parser.add_argument("--task_length", type=int, default=128)
    parser.add_argument("--task_batch", type=int, default=32, help="texts per step")
    parser.add_argument("--step_rate", type=float, default=830_000, help="tokens/s that the fastest training step takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per round of batches")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps((store_worker if options.worker == "store" else batches_worker)(options)))
        return

    with tempfile.TemporaryDirectory() as scratch:
        corpora = {"as given": options.corpus}
        if options.times:
            many = Path(scratch) / "many.jsonl"
            write_times(options.corpus, options.times, many)
            corpora[f"{options.times} times"] = str(many)
        stores: dict[str, list[dict[str, Any]]] = {name: [] for name in corpora}
        for turn in range(options.rounds):
            for name, corpus in corpora.items():
                with tempfile.TemporaryDirectory(dir=scratch) as cache:
                    stores[name].append(run_worker("store", options, corpus, Path(cache)))
                last = stores[name][-1]
                print(f"round {turn + 1}: {name}: {last['tokens'] / last['seconds']:,.0f} tokens/s, peak {last['peak_mb']:,.0f} MB",
                      flush=True)
        batches = run_worker("batches", options, options.corpus, Path(scratch) / "cache")
    show_stores(stores)
    show_batches(batches, options.step_rate)
    settings = {name: value for name, value in vars(options).items() if name not in ("worker", "model", "corpus")}
    record.append("data_rate", {"settings": settings, "stores": stores, "batches": batches, "load_average": os.getloadavg()[0]})


if __name__ == "__main__":
    main()
