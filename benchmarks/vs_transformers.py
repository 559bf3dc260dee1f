"""Compare the speed of the same MLM training work in jaxplm and in transformers' PyTorch on this machine.

    python benchmarks/vs_transformers.py [--model=DIR] [--corpus=FILE] [--rows=32] [--length=128] [--steps=6] [--rounds=3] \
        [--line_by_line] [--compile_limit=90]

Model and corpus are paths or built-ins; benchmarks/random_model.py makes a model of any size where none is.

Both get the same checkpoint, the same packed rows, the same masks, the checkpoint's dropout, AdamW with weight decay
and clipping by global norm. jaxplm projects the masked positions alone and keeps the texts of a row apart.
transformers' BertForMaskedLM projects every position and attends over the whole row, as run_mlm.py does. With
--line_by_line, PyTorch gets the same texts of a step one per row, padded to the longest of the step, as run_mlm.py
--line_by_line does: compare so for TAPT.

PyTorch has SDPA and fused AdamW. On a GPU its batches are in pinned memory and copied while it computes, and packed rows
come without a mask, as run_mlm.py's full rows do, so that SDPA may take its fastest kernel.

Each contestant runs in a process of its own, one after the other, `rounds` times. The first steps (compilation,
warm-up) are not counted. On a CPU each step is timed. On a GPU the counted steps are enqueued and timed together. A process
that uses torch.compile is ended after --compile_limit seconds.

It prints real tokens per second (padding is not counted), the median over all counted steps, and the ratio to each
contestant. A line of JSON with everything is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import record
from allocation import HUGE_PAGES, TUNED_MALLOC
from workers import COMPILED, compile_limit, on_gpu, result_of, run_in_turn, selected

ON_CPU = {
    "jaxplm": ("jaxplm", HUGE_PAGES),
    "torch float32": ("torch-float32", {}),
    "torch bfloat16": ("torch-bfloat16", {}),
    "torch float32, tuned malloc": ("torch-float32", TUNED_MALLOC),
    "torch bfloat16, tuned malloc": ("torch-bfloat16", TUNED_MALLOC),
    f"torch bfloat16, tuned malloc, {COMPILED}": ("torch-bfloat16-compiled", TUNED_MALLOC),
}
ON_GPU = {
    "jaxplm": ("jaxplm", HUGE_PAGES),
    "torch float32": ("torch-float32", {}),
    "torch bfloat16": ("torch-bfloat16", {}),
    f"torch bfloat16, {COMPILED}": ("torch-bfloat16-compiled", {}),
}
WARM_UP = 2


def make_batches(options: argparse.Namespace, path: Path) -> None:
    """Write the training batches of all steps as one .npz file."""
    from jaxplm import hf
    from jaxplm.config import Config, Data, Train
    from jaxplm.recipes.pretrain.corpus import CorpusReader

    loaded = hf.load(options.model)
    config = Config(data=Data(train=options.corpus, seq_len=options.length), train=Train(batch_size=options.rows))
    reader = CorpusReader(config, loaded.tokenizer, np.arange(options.rows))
    batches = reader.training(reader.plan(reader.store(options.corpus)))
    of_steps = [batches.batch(step) for step in range(WARM_UP + options.steps)]
    np.savez(path, **{f"{name}{i}": array for i, batch in enumerate(of_steps) for name, array in batch._asdict().items()})


def read_batches(path: Path, steps: int) -> list:
    """Return the batches that `make_batches` wrote."""
    from jaxplm.data.batch import Batch

    with np.load(path) as arrays:
        return [Batch(*(arrays[f"{name}{i}"] for name in Batch._fields)) for i in range(steps)]


def seconds_of(step: Callable[[int], None], now: Callable[[], float], count: int) -> list[float]:
    """Make `count` steps and return the seconds of each.

    Args:
      step: enqueues the step of an index.
      now: the clock after all that was enqueued.
    """
    seconds = []
    for index in range(WARM_UP if on_gpu() else count):
        began = now()
        step(index)
        seconds.append(now() - began)
    if left := range(len(seconds), count):  # a GPU's step is shorter than the way to it: waiting for each would measure that
        began = now()
        for index in left:
            step(index)
        seconds += [(now() - began) / len(left)] * len(left)
    return seconds


def jaxplm_worker(options: argparse.Namespace, batches: list) -> tuple[list[float], list[float]]:
    """Train on the batches; return the seconds and the loss of each step."""
    import jax

    from jaxplm import hf, nn
    from jaxplm.config import Compute, Mesh, Train
    from jaxplm.devices import sharding
    from jaxplm.devices.compute import resolve_compute
    from jaxplm.engine.setup import TrainSetup
    from jaxplm.tasks.mlm import MaskedLanguageModelling

    loaded = hf.load(options.model)
    mesh = sharding.make_mesh(Mesh())
    graph, abstract = nn.abstract_model(loaded.config)
    train = Train(learning_rate=2e-4, warmup=0, schedule="constant")
    task = MaskedLanguageModelling(max_segments_per_row=max(int(batch.segment_ids.max()) for batch in batches))
    setup = TrainSetup(graph, abstract, task, train, 1000, mesh, resolve_compute(Compute(), mesh))
    state = setup.first_state(loaded.params)
    metrics = []

    def step(index: int) -> None:
        nonlocal state
        state, of_step = setup.train_step(state, sharding.put_batch(batches[index], options.rows, mesh))
        metrics.append(of_step)

    def now() -> float:
        jax.block_until_ready((state, metrics))
        return time.perf_counter()

    seconds = seconds_of(step, now, len(batches))
    return seconds, [float(values["loss"]) / float(values["weight"]) for values in jax.device_get(metrics)]


def torch_arrays(batch, line_by_line: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return int64 ids, mask and labels (-100: no loss): packed rows [B, L], or one text per row [texts, longest]."""
    labels = np.full(batch.input_ids.shape, -100, np.int64)
    for row, (positions, answers, weights) in enumerate(zip(batch.mlm_positions, batch.mlm_labels, batch.mlm_weights, strict=True)):
        labels[row, positions[weights > 0]] = answers[weights > 0]
    if not line_by_line:
        return batch.input_ids.astype(np.int64), (batch.segment_ids > 0).astype(np.int64), labels
    texts = [(row, np.flatnonzero(segments == text)) for row, segments in enumerate(batch.segment_ids)
             for text in np.unique(segments[segments > 0])]
    shape = len(texts), max(len(places) for _, places in texts)
    ids, mask, text_labels = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -100, np.int64)
    for i, (row, places) in enumerate(texts):
        ids[i, : len(places)] = batch.input_ids[row, places]
        mask[i, : len(places)] = 1
        text_labels[i, : len(places)] = labels[row, places]
    return ids, mask, text_labels


def torch_worker(options: argparse.Namespace, batches: list, dtype: str, compiled: bool) -> tuple[list[float], list[float]]:
    """Train on the batches; return the seconds and the loss of each step."""
    import torch
    from torch_device import TorchDevice
    from transformers import AutoModelForMaskedLM

    from jaxplm import hf

    device = TorchDevice()
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(hf.resolve(options.model), dtype=torch.float32, attn_implementation="sdpa")
    model = model.train().to(device.name)
    groups = [{"params": [p for n, p in model.named_parameters() if p.ndim > 1], "weight_decay": 0.01},
              {"params": [p for n, p in model.named_parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)
    forward = torch.compile(model, dynamic=options.line_by_line) if compiled else model
    given = []
    for batch in batches:
        ids, mask, labels = map(device.host, torch_arrays(batch, options.line_by_line))
        masked = options.line_by_line or not device.is_gpu
        given.append({"input_ids": ids, "labels": labels} | ({"attention_mask": mask} if masked else {}))
    losses = []

    def step(index: int) -> None:
        inputs = {name: device.put(tensor) for name, tensor in given[index].items()}
        with device.autocast(dtype):
            loss = forward(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())

    seconds = seconds_of(step, device.now, len(batches))
    return seconds, [loss.item() for loss in losses]


def work(options: argparse.Namespace) -> None:
    """Run one contestant in this process and print a line of JSON."""
    if options.worker == "batches":
        make_batches(options, Path(options.batches))
        return print("null")
    batches = read_batches(Path(options.batches), WARM_UP + options.steps)
    kind = options.worker
    seconds, losses = (jaxplm_worker(options, batches) if kind == "jaxplm" else
                       torch_worker(options, batches, kind.split("-")[1], kind.endswith("-compiled")))
    tokens = [int((batch.segment_ids > 0).sum()) for batch in batches]
    print(json.dumps({"seconds": seconds[WARM_UP:], "tokens": tokens[WARM_UP:], "first": seconds[0], "losses": losses}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny", help="directory in transformers' format")
    parser.add_argument("--corpus", default="builtin:pydocs")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--line_by_line", action="store_true", help="PyTorch: one text per row, padded")
    parser.add_argument("--only", default="", help="comma-separated beginnings of contestants' names")
    parser.add_argument("--compile_limit", type=float, default=compile_limit(), help="seconds of a process with torch.compile")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--batches", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)

    record.stopped_by_exit()
    chosen = selected(ON_GPU if on_gpu() else ON_CPU, options.only)
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    losses: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "batches.npz"
            result_of("making the batches", [sys.executable, *sys.argv, "--worker=batches", f"--batches={path}"],
                      os.environ | {"JAX_PLATFORMS": "cpu"})
            for turn, name, result in run_in_turn(chosen, options.rounds, f"--batches={path}", compile_limit=options.compile_limit):
                rates[name] += [tokens / seconds for tokens, seconds in zip(result["tokens"], result["seconds"], strict=True)]
                losses[name] = result["losses"]
                print(f"round {turn}: {name}: {statistics.median(rates[name]):,.0f} tokens/s", flush=True)
    finally:
        report(options, rates, losses)


def report(options: argparse.Namespace, rates: dict[str, list[float]], losses: dict[str, list[float]]) -> None:
    """Print the table of the contestants that have finished, and append the record."""
    medians = {name: statistics.median(values) for name, values in rates.items() if values}
    print(f"\n{'':<44}{'tokens/s':>10}{'jaxplm is':>12}{'last loss':>12}")
    for name, rate in medians.items():
        print(f"{name:<44}{rate:>10,.0f}{medians.get('jaxplm', float('nan')) / rate:>11.2f}×{losses[name][-1]:>12.4f}")
    record.append("vs_transformers", {"rows": options.rows, "length": options.length, "tokens_per_second": medians, "all": rates,
                                      "losses": losses})


if __name__ == "__main__":
    main()
