"""Measure the selection of texts: time, memory, exact agreement with float64, planted near-duplicates, leaks and copies.

    python benchmarks/select_rate.py [--model=DIR] [--corpora=FILE,FILE] [--train=FILE --validation=FILE --test=FILE] \
        [--texts=50000] [--neighbours=50] [--seq_len=48] [--layers=last] [--rows=32] \
        [--synthetic=1000000] [--only=real,vectors,words] [--scratch=DIR]

Models and data are paths or built-ins. Three parts, each in processes of its own, whose highest resident memory is given:

real: passages of at most `--chars` characters of the corpora's lines, `--texts` of them, evenly spread. Near-duplicates of task
texts (in capitals, between quotation marks) are put among them, and every text of the validation and test set inside another
passage. The recipe's own stages run: reading with leaks and repetitions, embedding, search, ranking. The neighbours are compared with
a brute force in float64 over the same vectors.
vectors: a quarter of `--synthetic` random vectors, then all, and as many queries as the task has texts: search and ranking.
A sample of the queries is compared with a brute force in float64.
words: a quarter of `--synthetic` random texts, then all, with planted leaks and repetitions: leaks, and importance weights.

A line of JSON per part is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record

WIDTH = 384  # of synthetic vectors
WORDS = 20  # of a synthetic text
BRUTE_QUERIES = 200  # of synthetic vectors
SHARD = 1 << 16


def peak() -> float:
    """Return the highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Seconds of each stage, by the clock and of all cores' work, and the highest memory up to its end."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._began, self._worked = time.perf_counter(), time.process_time()

    def done(self, stage: str) -> None:
        seconds, work = time.perf_counter() - self._began, time.process_time() - self._worked
        self.stages[stage] = {"seconds": round(seconds, 2), "cpu_seconds": round(work, 2), "peak_mib": round(peak())}
        print(f"{stage}: {seconds:,.1f} s, {work:,.1f} s of the cores' work, highest memory {peak():,.0f} MiB", flush=True)
        self._began, self._worked = time.perf_counter(), time.process_time()


def brute_force(queries: np.ndarray, blocks: Iterator[tuple[int, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest by float64 products alone, highest first: [q, k] numbers and cosines."""
    best, numbers = np.zeros((len(queries), 0)), np.zeros((len(queries), 0), np.int64)
    for first, block in blocks:
        block = block.astype(np.float64)
        near = queries @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T
        best = np.concatenate([best, near], axis=1)
        numbers = np.concatenate([numbers, np.broadcast_to(np.arange(first, first + len(block)), near.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, numbers = np.take_along_axis(best, order, 1), np.take_along_axis(numbers, order, 1)
    return numbers, best


def agreement(numbers: np.ndarray, similarities: np.ndarray, wanted: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Return how far neighbours agree with those of `brute_force`; equal cosines up to rounding (1e-13) may change places."""
    differing = numbers != wanted[0]
    ties = differing & (np.abs(similarities - wanted[1]) <= 1e-13)
    return {"compared": int(numbers.size), "differing": int((differing & ~ties).sum()), "differing_in_rounding": int(ties.sum()),
            "largest_difference": float(np.abs(similarities - wanted[1]).max())}


# ---------------------------------------------------------------- real texts


def passages(options: argparse.Namespace) -> list[str]:
    """Return passages of the corpora's lines, cut before a space."""
    from jaxplm.data.sources.texts import open_texts

    found: list[str] = []
    for corpus in options.corpora.split(","):
        for line in open_texts(corpus, lines="true"):
            while len(line) > options.chars:
                cut = max(line.rfind(" ", 0, options.chars), 1)
                found.append(line[:cut].strip())
                line = line[cut:].strip()
            found.append(line)
    found = [text for text in dict.fromkeys(found) if text]
    if len(found) < options.texts:
        sys.exit(f"the corpora have {len(found):,} passages, fewer than --texts={options.texts}")
    return [found[i] for i in np.linspace(0, len(found) - 1, options.texts).astype(int)]


def real(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from jaxplm.config import Config, Data, Embed, Mesh, Model, Select, Task, Train
    from jaxplm.data.selection.leaks import LeakFinder
    from jaxplm.data.selection.neighbours import unit
    from jaxplm.data.selection.passes import CorpusPass, KeptTexts
    from jaxplm.data.selection.screening import screen
    from jaxplm.data.selection.text_units import split_units
    from jaxplm.devices import sharding
    from jaxplm.devices.start import start_jax
    from jaxplm.engine.signals import StopRequest
    from jaxplm.recipes.select.nearest import NearestTexts
    from jaxplm.recipes.select.task_texts import read_task
    from jaxplm.recipes.select.vectors import StoredVectors
    from jaxplm.reporting import console

    start_jax()
    console.setup()
    config = Config(recipe="select", model=Model(options.model), task=Task("classify"), train=Train(batch_size=options.rows),
                    embed=Embed(layers=options.layers),
                    data=Data(corpus="planted", train=options.train, validation=options.validation, test=options.test,
                              seq_len=options.seq_len), select=Select(neighbours=options.neighbours))
    options_corpus, config.data.corpus = config.data.corpus, options.corpora
    task = read_task(config)
    config.data.corpus = options_corpus
    finder = LeakFinder(task.evaluated, config.select.leak_ngram)
    # A task text that shares words with the test set is no copy to keep, and of equal ones a single copy is kept.
    first = {text: i for i, text in reversed(list(enumerate(task.texts)))}
    clean = [i for i in np.flatnonzero(finder.find(task.texts) == 0).tolist() if first[task.texts[i]] == i]
    texts = passages(options)
    random = np.random.default_rng(0)
    places = random.permutation(len(texts))
    copied = [int(i) for i in random.choice(clean, min(500, len(clean)), replace=False)]
    copies = places[: len(copied)]
    for place, i in zip(copies, copied, strict=True):
        texts[place] = f"«{task.texts[i].upper()}» !"
    held = [text for some in task.evaluated.values() for text in some]
    leaks = places[len(copied) : len(copied) + len(held)]
    for place, text in zip(leaks, held, strict=True):
        # A text of fewer words than an n-gram is a leak where it stands alone.
        short = len(split_units(text)) < config.select.leak_ngram
        texts[place] = text.title() if short else f"{texts[place][:100]} ({text.title()}) {texts[place][100:200]}"
    clock = Clock()
    screened = screen(texts, finder, CorpusPass(scratch, "screened"), lambda done: None)
    clock.done("reading")
    kept = np.flatnonzero(screened.kept)
    with StopRequest() as stop:
        mesh = sharding.make_mesh(Mesh())
        nearest = NearestTexts(config, scratch, task.texts, KeptTexts(texts, screened.kept), mesh, stop)
        clock.done("model")
        nearest.compute()
        clock.done("embedding and search")
        (scratch / "search.npz").unlink()
        nearest.compute()
        clock.done("search alone, with compilation")
        selection = nearest.selection(kept, task.rows, lambda done: None)
        clock.done("ranking in float64")
    assert selection.neighbours is not None and selection.similarities is not None
    stored, queries = StoredVectors(scratch / "corpus"), StoredVectors(scratch / "task")
    wanted = brute_force(unit(queries.take(np.arange(queries.count))), stored.blocks(4096), options.neighbours)
    clock.done("brute force in float64")
    rank_of_copy = [int(np.flatnonzero(selection.neighbours[i] == place)[0]) if place in selection.neighbours[i] else -1
                    for place, i in zip(copies, copied, strict=True)]
    return {
        "texts": len(texts), "task_texts": len(task.texts), "neighbours": options.neighbours, "available": len(kept),
        "selected": len(selection.numbers), "stages": clock.stages,
        "agreement": agreement(np.searchsorted(kept, selection.neighbours), selection.similarities, wanted),
        "planted_copies": len(copied), "copies_found": int((np.array(rank_of_copy) >= 0).sum()),
        "copies_first": rank_of_copy.count(0), "planted_leaks": len(held), "leaks_left": int(screened.kept[leaks].sum()),
        "leaks_removed": screened.leaks,
    }


# ---------------------------------------------------------------- synthetic vectors and texts


def write_vectors(directory: Path, count: int) -> None:
    """Write clustered random vectors as the recipe `embed` stores its own."""
    directory.mkdir()
    centres = np.random.default_rng(1).normal(size=(1000, WIDTH)).astype(np.float32)
    shards = []
    for number, first in enumerate(range(0, count, SHARD)):
        random = np.random.default_rng([2, number])
        rows = min(SHARD, count - first)
        vectors = random.standard_normal((rows, WIDTH), np.float32)
        vectors += centres[random.integers(0, len(centres), rows)]
        np.save(directory / f"embeddings-{number:05}.npy", vectors)
        shards.append({"file": f"embeddings-{number:05}.npy", "rows": rows, "vectors": rows})
    (directory / "index.json").write_text(json.dumps({"rows": count, "vectors": count, "width": WIDTH, "shards": shards}))


def vectors(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from jaxplm.config import Mesh
    from jaxplm.data.selection.neighbours import unit
    from jaxplm.devices import sharding
    from jaxplm.devices.start import start_jax
    from jaxplm.recipes.select.search import find_candidates, rank
    from jaxplm.recipes.select.vectors import StoredVectors

    start_jax()
    write_vectors(scratch / "corpus", options.count)
    write_vectors(scratch / "task", options.queries)
    task, corpus = StoredVectors(scratch / "task"), StoredVectors(scratch / "corpus")
    clock = Clock()
    found = find_candidates(task, corpus, options.neighbours, sharding.make_mesh(Mesh()), scratch / "search.npz", lambda done: None)
    clock.done("search, with compilation")
    numbers, similarities = rank(task, corpus, found, options.neighbours, lambda done: None)
    clock.done("ranking in float64")
    sample = np.linspace(0, task.count - 1, min(BRUTE_QUERIES, task.count)).astype(int)
    wanted = brute_force(unit(task.take(sample)), corpus.blocks(4096), options.neighbours)
    return {"vectors": options.count, "width": WIDTH, "queries": options.queries, "neighbours": options.neighbours, "stages": clock.stages,
            "agreement": agreement(numbers[sample], similarities[sample], wanted)}


def synthetic_texts(count: int, test: list[str]) -> Iterator[str]:
    """Yield random texts; every 1000th holds a text of the test set, every 1000th after it repeats an earlier one."""
    vocabulary = np.array([f"w{i}" for i in range(50_000)], object)
    for first in range(0, count, 10_000):
        random = np.random.default_rng([3, first])
        chosen = (50_000 * random.random((10_000, WORDS)) ** 3).astype(int)  # frequent words and rare ones
        some = [" ".join(words) for words in vocabulary[chosen].tolist()]
        for i in range(0, 10_000, 1000):
            some[i] = f"{some[i]} {test[(first + i) // 1000 % len(test)].upper()} {some[i + 2]}"
            some[i + 1] = some[7]
        yield from some[: count - first]


class SyntheticTexts:
    """`synthetic_texts`, as often as they are asked for."""

    def __init__(self, count: int, test: list[str]) -> None:
        self._count, self._test = count, test

    def __iter__(self) -> Iterator[str]:
        return synthetic_texts(self._count, self._test)


def words(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    from jaxplm.data.selection import importance, sampling
    from jaxplm.data.selection.leaks import LeakFinder
    from jaxplm.data.selection.passes import CorpusPass, KeptTexts
    from jaxplm.data.selection.screening import screen

    random = np.random.default_rng(4)
    test = [" ".join(f"w{i}" for i in random.integers(0, 50_000, 12)) for _ in range(500)]
    texts = SyntheticTexts(options.count, test)
    clock = Clock()
    screened = screen(texts, LeakFinder({"test": test}, 8), CorpusPass(scratch, "screened"), lambda done: None)
    clock.done("reading: leaks and repetitions")
    planted = np.arange(0, options.count, 1000)
    kept, ngrams = KeptTexts(texts, screened.kept), importance.HashedNgrams()
    counted, weighed = CorpusPass(scratch, "counted"), CorpusPass(scratch, "weighed")
    counted.run(kept, lambda _, some: importance.count(some, ngrams), lambda done: None, joined=lambda parts: np.sum(parts, axis=0))
    clock.done("counting n-grams")
    ratios = importance.log_ratios(importance.count(test, ngrams), np.sum(list(counted.arrays()), axis=0))
    weighed.run(kept, lambda _, some: importance.log_weights(some, ratios, ngrams), lambda done: None)
    numbers, weights = np.flatnonzero(screened.kept), np.concatenate(list(weighed.arrays()))
    chosen = sampling.highest(weights + sampling.gumbel(0, numbers), 50_000)
    clock.done("weighing and sampling")
    return {"texts": options.count, "words_per_text": WORDS, "stages": clock.stages, "planted_leaks": len(planted),
            "leaks_left": int(screened.kept[planted].sum()), "leaks_removed": screened.leaks, "repetitions": screened.duplicates,
            "chosen": len(chosen)}


# ---------------------------------------------------------------- processes


def child(options: argparse.Namespace, part: str, count: int = 0, queries: int = 0) -> dict[str, Any]:
    """Run a part in a process of its own, whose output is shown, and return its figures."""
    import subprocess

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        command = [sys.executable, __file__, *sys.argv[1:], f"--worker={part}", f"--count={count}", f"--queries={queries}",
                   f"--here={scratch}"]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{part} failed")
        return json.loads((Path(scratch) / "figures.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny", help="directory in transformers' format")
    parser.add_argument("--corpora", default="builtin:pydocs", help="comma-separated")
    parser.add_argument("--train", default="builtin:pydocs-labels")
    parser.add_argument("--validation", default="")
    parser.add_argument("--test", default="")
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--chars", type=int, default=120, help="characters of a passage, at most")
    parser.add_argument("--neighbours", type=int, default=50)
    parser.add_argument("--seq_len", type=int, default=48)
    parser.add_argument("--layers", default="last", help="layers to take vectors from, as embed.layers")
    parser.add_argument("--rows", type=int, default=32, help="rows of tokens per batch")
    parser.add_argument("--synthetic", type=int, default=1_000_000)
    parser.add_argument("--synthetic_queries", type=int, default=1688)
    parser.add_argument("--only", default="real,vectors,words", help="comma-separated parts")
    parser.add_argument("--scratch", default=None, help="directory of temporary files; 1.6 GB for a million vectors")
    for hidden in ("--worker", "--here"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--count", "--queries"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    parts = {"real": real, "vectors": vectors, "words": words}
    if options.worker:
        figures = parts[options.worker](options, Path(options.here))
        (Path(options.here) / "figures.json").write_text(json.dumps(figures))
        return
    for part in options.only.split(","):
        if part not in parts:
            sys.exit(f"--only={part}: there are {', '.join(parts)}")
        sizes = [0] if part == "real" else [options.synthetic // 4, options.synthetic]
        results = [child(options, part, size, options.synthetic_queries) for size in sizes]
        print(json.dumps(results, indent=1))
        record.append(f"select_rate {part}", {"runs": results})


if __name__ == "__main__":
    main()
