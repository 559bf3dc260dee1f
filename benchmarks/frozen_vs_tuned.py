"""Compare three ways to learn a task: the whole model tuned, the encoder frozen, the head alone on cached vectors.

    python benchmarks/frozen_vs_tuned.py --model=DIR --kind=classify --train=train.jsonl --validation=dev.jsonl \
        --test=test.jsonl [--metric=macro_f1] [--epochs=3] [--frozen_epochs=40] [--seeds=1,2,3]

For each way it prints: the number of trained parameters; FLOPs per text as the compiler counts them; seconds per epoch
(the median step times the steps of an epoch); bytes of the optimizer's state; the test metric of the real commands
(configs/finetune.py and configs/feature_extraction.py), mean ± std over the seeds; and whether the exported encoder
equals the model's own bit for bit. The frozen and the cached way learn the same head, so only the cached one is trained
to the end. A line of JSON with everything is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record

from jaxplm import hf
from jaxplm.config import Config, Data, Model, Task, Train
from jaxplm.devices import sharding
from jaxplm.engine import optim
from jaxplm.engine.setup import prepare
from jaxplm.nn import paths
from jaxplm.recipes.finetune.builder import build_job
from jaxplm.tasks.kinds import KINDS

FROZEN_HEAD = {"task.pooling": "mean", "task.layers": "mix", "train.batch_size": 32, "train.learning_rate": 1e-3,
               "train.weight_decay": 0.01}


def config_of(options: argparse.Namespace, way: str) -> Config:
    tuned = way == "tuned"
    words = options.kind in ("tag", "qa")
    data = Data(train=options.train, validation=options.validation, test=options.test, text=options.text, text_pair=options.text_pair,
                label=options.label, seq_len=options.length)
    train = Train(epochs=1.0, batch_size=16 if tuned else 32, learning_rate=1e-4 if tuned else 1e-3, metric=options.metric,
                  freeze=() if tuned else ("encoder",))
    task = Task(kind=options.kind, cache="on" if way == "cached" else "off", layers="last" if tuned else "mix",
                pooling="cls" if tuned or words else "mean")
    return Config(recipe="finetune" if tuned else "feature_extraction", model=Model(path=options.model), data=data, task=task, train=train)


def measure_step(options: argparse.Namespace, way: str, steps: int) -> dict[str, float]:
    """Return trained parameters, FLOPs per text, seconds per step and per epoch, and bytes of the optimizer's state."""
    config = config_of(options, way)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        prepared = prepare(config, Path(scratch), partial(build_job, vectors=Path(scratch) / "vectors"))
        seconds_to_prepare = time.perf_counter() - began
        job: Any = prepared.job
        setup = prepared.setup
        state = setup.first_state(job.params)
        batches = [sharding.put_batch(job.train.batch(step), job.rows, prepared.mesh) for step in range(steps + 2)]
        cost: Any = setup.lower(batches[0]).compile().cost_analysis()
        seconds = []
        for batch in batches:
            began = time.perf_counter()
            state, sums = setup.train_step(state, batch)
            jax.block_until_ready((state, sums))
            seconds.append(time.perf_counter() - began)
    frozen = optim.frozen_layers(job.params, job.settings.freeze)
    trained = sum(leaf.size for leaf, mask in zip(jax.tree.leaves(job.params), jax.tree.leaves(frozen), strict=True) if not mask.all())
    step = statistics.median(seconds[2:])
    return {"trained": trained, "flops": (cost if isinstance(cost, dict) else cost[0])["flops"] / job.train.rows.units_per_step,
            "step": step, "epoch": step * job.train.steps_per_epoch, "prepared": seconds_to_prepare,
            "state": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.state.opt_state))}


def run_command(options: argparse.Namespace, way: str, workdir: Path) -> tuple[list[float], bool]:
    """Run the real command; return the test metric of every seed and whether the exported encoder is unchanged."""
    tuned = way == "tuned"
    fields: dict[str, Any] = {
        "model.path": options.model, "task.kind": options.kind, "data.train": options.train, "data.validation": options.validation,
        "data.test": options.test, "data.text": options.text, "data.text_pair": options.text_pair, "data.label": options.label,
        "data.seq_len": options.length, "train.metric": options.metric, "train.seeds": f"({options.seeds},)",
        "train.epochs": options.epochs if tuned else options.frozen_epochs, "checkpoint.every": 1_000_000, "checkpoint.keep": 1}
    if tuned:
        fields |= {"train.learning_rate": 1e-4}
    else:
        fields |= {name: value for name, value in FROZEN_HEAD.items() if name != "task.pooling" or not KINDS[options.kind].per_token}
    command = [sys.executable, "-m", "jaxplm.main", f"--config=configs/{'finetune' if tuned else 'feature_extraction'}.py",
               f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items())]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stdout}\n{done.stderr}")
    values = []
    for file in sorted(workdir.glob("seed-*/metrics.jsonl")) or [workdir / "metrics.jsonl"]:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        values.append(next(row[options.metric] for row in rows if row["split"] == "test"))
    before = paths.named(hf.load(options.model).params["encoder"])
    after = paths.named(hf.load_task_model(str(workdir / "export"), KINDS).params["encoder"])
    return values, all(np.array_equal(before[name], after[name]) for name in before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "kind", "train", "validation", "test", "metric"):
        parser.add_argument(f"--{name}", required=True)
    for name, default in (("text", "text"), ("text_pair", ""), ("label", "label"), ("seeds", "1,2,3")):
        parser.add_argument(f"--{name}", default=default)
    for name, kind, default in (("epochs", float, 3.0), ("frozen_epochs", float, 40.0), ("length", int, 128), ("steps", int, 8)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {way: measure_step(options, way, options.steps) for way in ("tuned", "frozen", "cached")}
    for way in ("tuned", "cached"):
        with tempfile.TemporaryDirectory() as scratch:
            figures[way]["scores"], figures[way]["encoder unchanged"] = run_command(options, way, Path(scratch) / "run")
    print(f"{'':<8}{'trained':>12}{'GFLOP/text':>14}{'s/epoch':>12}{'optimizer':>12}{'test ' + options.metric:>22}{'encoder':>12}")
    for way, one in figures.items():
        values = one.get("scores", [])
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        score = f"{statistics.mean(values):.4f} ± {spread:.4f}" if values else "as cached"
        same = {True: "unchanged", False: "changed", None: ""}[one.get("encoder unchanged")]
        print(f"{way:<8}{one['trained']:>12,}{one['flops'] / 1e9:>14.3f}{one['epoch']:>12.2f}{one['state'] / 2**20:>8.1f} MiB"
              f"{score:>22}{same:>12}")
    print(f"FLOPs frozen / tuned {figures['frozen']['flops'] / figures['tuned']['flops']:.3f}; an epoch on cached vectors is"
          f" {figures['frozen']['epoch'] / figures['cached']['epoch']:.0f}× faster than through the frozen encoder;"
          f" the vectors took {figures['cached']['prepared']:.0f} s")
    record.append("frozen_vs_tuned", {"ways": figures})


if __name__ == "__main__":
    main()
