"""Compare the losses of the same training steps by different settings in one process: seconds per curve and no checkpoints.

    python benchmarks/loss_curves.py --out=DIR [--preset=base] [--rows=16] [--length=512] [--steps=300] [--limit=0.5] \
        [--curves="as it is; kernels=plain,attention=plain; dtype=float8"] [--corpus=builtin:pydocs]

A model of the preset's sizes with random weights learns masked language modelling from packed rows of the corpus, in tokens
of builtin:tiny's tokenizer. All curves have the same first weights, rows, masks and dropout of hidden states; attention
weights have none, because flash attention has none. The learning rate rises over 100 steps to 5e-5: at 1e-4 from the first
step on, the loss of a base-sized model jumps once, in every curve at another step. Each curve changes fields of the case
(`mlm_work.Case`). All are compiled at once, then each is run.

It prints the largest relative difference from the first curve of the training loss averaged over 20 steps, and seconds; it
writes DIR/loss_curves.png, DIR/losses.json, and a line of JSON in benchmarks/results.jsonl. A curve that this machine
cannot compute is named and left out. Exit status: 1 if averaged curves differ by more than --limit percent or one is left out.

benchmarks/precision_curves.py compares whole runs of the command.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import curves
import jax
import numpy as np
import record
from mlm_work import Case, Work

from jaxplm import hf, nn
from jaxplm.config import Config, Data, Train
from jaxplm.recipes.pretrain.corpus import CorpusReader


def read_batches(options: argparse.Namespace, vocab_size: int) -> list[Any]:
    """Return the batches of all steps; exit with a message if the model's vocabulary is smaller than the tokenizer's."""
    tokenizer = hf.load_tokenizer(hf.resolve("builtin:tiny"), "builtin:tiny")[0]
    if len(tokenizer) > vocab_size:
        sys.exit(f"vocab={vocab_size}: must be {len(tokenizer)} or more, the tokens of builtin:tiny")
    config = Config(data=Data(train=options.corpus, seq_len=options.length), train=Train(batch_size=options.rows))
    reader = CorpusReader(config, tokenizer, np.arange(options.rows))
    training = reader.training(reader.plan(reader.store(options.corpus)))
    return [training.batch(step) for step in range(options.steps)]


def train(work: Work, compiled: Future[None], params: Any, batches: list[Any]) -> np.ndarray:
    """Return the training loss of every step."""
    compiled.result()
    work.place(params)
    waiting = []
    for batch in batches:
        work.state, metrics = work.compiled(work.state, work.put(batch))
        waiting.append(metrics)
    return np.array([float(values["loss"]) / float(values["weight"]) for values in jax.device_get(waiting)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=float, default=0.5, help="percent")
    parser.add_argument("--curves", default="as it is; kernels=plain,attention=plain; dtype=float8")
    parser.add_argument("--corpus", default="builtin:pydocs")
    parser.add_argument("--case", default="", help="fields of every curve's case")
    options = parser.parse_args()
    if options.steps < curves.WINDOW:
        parser.error(f"--steps={options.steps}: must be {curves.WINDOW} or more, over which losses are averaged")
    began = time.monotonic()
    base = Case(preset=options.preset, rows=options.rows, length=options.length, weight_dropout=False, learning_rate=5e-5,
                warmup=100.0).varied(options.case)
    batches = read_batches(options, base.encoder().vocab_size)
    most = max(int(batch.segment_ids.max()) for batch in batches)
    base = dataclasses.replace(base, texts=most)
    print(f"{options.steps} batches, at most {most} texts per row: {time.monotonic() - began:.1f} s", flush=True)
    works: dict[str, tuple[Work, Future[None]]] = {}
    losses: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in map(str.strip, options.curves.split(";")):
            try:
                work = Work(base if name == "as it is" else base.varied(name), batches[0], ready=False)
            except Exception as error:  # a type of numbers that this device does not have
                left_out.append(name)
                print(f"{name}: {error}", flush=True)
                continue
            works[name] = work, pool.submit(work.compile)
        params = nn.random_params(base.encoder(), 0)
    for name, (work, compiled) in works.items():
        started = time.monotonic()
        try:
            losses[name] = train(work, compiled, params, batches)
            print(f"{name}: compiled in {work.seconds_to_build:.1f} s, {options.steps} steps in {time.monotonic() - started:.1f} s, loss "
                  f"{losses[name][0]:.4f} → {losses[name][-curves.WINDOW:].mean():.4f}", flush=True)
        except Exception as error:  # out of memory, or the compiler's: the other curves are worth having
            left_out.append(name)
            print(f"{name}: {str(error).splitlines()[0]}", flush=True)
        work.free()
    if not losses:
        sys.exit("no curve was computed")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "losses.json").write_text(json.dumps({name: list(map(float, curve)) for name, curve in losses.items()}))
    figures = curves.compare(losses, out / "loss_curves.png")
    record.append("loss_curves", {"first": next(iter(losses)), "apart": figures, "left_out": left_out,
                                  "last": {name: float(curve[-curves.WINDOW:].mean()) for name, curve in losses.items()}})
    print(f"{time.monotonic() - began:.1f} s")
    if wrong := curves.beyond(figures, options.limit):
        sys.exit(f"{', '.join(wrong)}: the curve differs by more than {options.limit:g} % from that of {next(iter(losses))}")
    if left_out:
        sys.exit(f"left out: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
