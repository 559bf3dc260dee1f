"""Compare scores and time of the same fine-tuning in jaxplm and in transformers' PyTorch, over seeds.

    python benchmarks/finetune_vs_transformers.py --model=DIR --kind=classify --train=train.jsonl \
        --validation=dev.jsonl --test=test.jsonl [--metric=macro_f1] [--epochs=3] [--seeds=1,2,3] [--lr=1e-4] \
        [--contestants=jaxplm,torch-bfloat16-grouped] [--compile_limit=90]

With no field it is builtin:tiny on builtin:pydocs-labels, which has its own validation and test set.

jaxplm is the real command, configs/finetune.py. The others train transformers' AutoModelFor... on the same units of
tokens, with the same AdamW, schedule, clipping, dropout and texts per step. They pad to the longest text of a batch
(`torch-float32`, `torch-bfloat16`), or also batch texts of similar length (`-grouped`, as Trainer's group_by_length), and
may use torch.compile (`-compiled`); a process that does is ended after --compile_limit seconds.
PyTorch has SDPA and fused AdamW. On a CPU it runs with malloc tuned by hand (benchmarks/allocation.py); on a GPU its batches
come from pinned memory while it computes. jaxplm runs as a user starts it. All are validated after
every epoch and the best epoch is tested, with the same code for the scores. Kinds: classify, multilabel, regress, tag.

It prints mean ± std of the test metric, training seconds (without evaluation, with compilation), wall seconds per seed, and
real tokens per second once compiled: jaxplm's without the steps that compiled, PyTorch's without its first ten steps. The
ratios are of wall seconds and of tokens per second. A line of JSON with everything is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from allocation import TUNED_MALLOC
from workers import compile_limit, on_gpu, result_of

ON_CPU = "jaxplm,torch-bfloat16,torch-bfloat16-grouped"
ON_GPU = "jaxplm,torch-bfloat16-grouped,torch-bfloat16-grouped-compiled"
FIRST_STEPS = 10  # of PyTorch's, which its speed leaves out


def config_of(options: argparse.Namespace) -> Any:
    from jaxplm.config import Config, Data, Model, Task, Train

    data = Data(train=options.train, validation=options.validation, test=options.test, seq_len=options.length, text=options.text,
                text_pair=options.text_pair, label=options.label)
    train = Train(epochs=options.epochs, batch_size=options.batch, learning_rate=options.lr, weight_decay=0.1, metric=options.metric)
    return Config(recipe="finetune", model=Model(path=options.model), data=data, task=Task(kind=options.kind), train=train)


def run_jaxplm(options: argparse.Namespace, seed: int, workdir: Path) -> dict[str, float]:
    """Run the command in `workdir` with an evaluation after every epoch; return its test metric and seconds."""
    from jaxplm import hf
    from jaxplm.data.labelled.task_batches import ShuffledRows
    from jaxplm.recipes.finetune.labelled_sets import read_sets

    config = config_of(options)
    sets = read_sets(config)
    tokenizer = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    encoded = sets.kind.encode(sets.train, tokenizer, options.length, config.task.overlap)
    rows = ShuffledRows(encoded.lengths, options.batch, options.length, seed=seed)
    fields = {"model.path": options.model, "task.kind": options.kind, "data.train": options.train, "data.validation": options.validation,
              "data.test": options.test, "data.seq_len": options.length, "data.text": options.text, "data.text_pair": options.text_pair,
              "data.label": options.label, "train.epochs": options.epochs, "train.batch_size": options.batch,
              "train.learning_rate": options.lr, "train.metric": options.metric, "train.eval_every": round(rows.steps_per_epoch),
              "checkpoint.every": 1_000_000, "checkpoint.keep": 1, "train.log_every": 50, "seed": seed}
    command = [sys.executable, "-m", "jaxplm.main", "--config=configs/finetune.py", f"--workdir={workdir}",
               *(f"--config.{name}={value}" for name, value in fields.items())]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"jaxplm failed:\n{done.stdout}\n{done.stderr}")
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    rate = sum(row["tokens"] for row in trained) / sum(row["tokens"] / row["tokens_per_second"] for row in trained)
    return {"test": next(row[options.metric] for row in rows if row["split"] == "test"), "wall": wall,
            "training": sum(row["seconds"] for row in trained), "tokens_per_second": rate}


def run_torch(options: argparse.Namespace, name: str, seed: int) -> dict[str, float] | None:
    """Run one seed of a PyTorch contestant in a process of its own; return its test metric and seconds, None past the time limit."""
    began = time.perf_counter()
    result = result_of(name, [sys.executable, *sys.argv, f"--worker={name}", f"--seed={seed}"],
                       os.environ | ({} if on_gpu() else TUNED_MALLOC), seconds=options.compile_limit if "compiled" in name else None)
    return result and result | {"wall": time.perf_counter() - began}


def torch_worker(options: argparse.Namespace) -> None:
    """Run one seed of one PyTorch contestant in this process and print a line of JSON."""
    import torch
    import transformers
    from torch_device import TorchDevice

    from jaxplm import hf
    from jaxplm.recipes.finetune.labelled_sets import read_sets

    transformers.logging.set_verbosity_error()
    device = TorchDevice()
    _, dtype, *ways = options.worker.split("-")
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    config = config_of(options)
    sets = read_sets(config)
    tokenizer = hf.load_tokenizer(hf.resolve(options.model), options.model)[0]
    examples = {"train": sets.train, **sets.evaluated}
    encoded = {name: sets.kind.encode(part, tokenizer, config.data.seq_len, config.task.overlap) for name, part in examples.items()}
    targets = sets.kind.targets(sets.train, encoded["train"], sets.labels)
    outputs = sets.kind.num_outputs(sets.labels)
    auto = transformers.AutoModelForTokenClassification if options.kind == "tag" else transformers.AutoModelForSequenceClassification
    problem = {"multilabel": "multi_label_classification", "regress": "regression"}.get(options.kind, "single_label_classification")
    extra = {} if options.kind == "tag" else {"problem_type": problem}
    model = auto.from_pretrained(hf.resolve(options.model), num_labels=outputs, dtype=torch.float32, attn_implementation="sdpa", **extra)
    model = model.to(device.name)
    forward = torch.compile(model, dynamic=True) if "compiled" in ways else model
    groups = [{"params": [p for n, p in model.named_parameters() if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for n, p in model.named_parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)
    train = encoded["train"]
    steps_per_epoch = -(-len(train) // options.batch)
    total = round(options.epochs * steps_per_epoch)
    warmup = round(0.06 * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / max(warmup, 1) if step < warmup else (total - step) / (total - warmup))

    multiple = 8 if on_gpu() else 1  # fewer shapes, each of which may be planned for once

    def width_of(part: Any, chosen: np.ndarray) -> int:
        return -(-int(part.lengths[chosen].max()) // multiple) * multiple

    def inputs_of(part: Any, chosen: np.ndarray) -> dict[str, Any]:
        width = width_of(part, chosen)
        ids = np.full((len(chosen), width), tokenizer.pad_token_id, np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, unit in enumerate(chosen):
            begin, end = part.offsets[unit], part.offsets[unit + 1]
            ids[row, : end - begin], types[row, : end - begin] = part.ids[begin:end], part.types[begin:end]
            mask[row, : end - begin] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        names = tokenizer.model_input_names
        return {name: device.put(device.host(array)) for name, array in given.items() if name in names}

    def labels_of(chosen: np.ndarray) -> Any:
        if not targets.per_token:
            values = np.asarray(targets.values[chosen], np.int64 if options.kind == "classify" else np.float32)
            return device.put(device.host(values))
        tags = np.full((len(chosen), width_of(train, chosen)), -100, np.int64)
        for row, unit in enumerate(chosen):
            here = slice(train.offsets[unit], train.offsets[unit + 1])
            tags[row, : train.lengths[unit]] = np.where(targets.weights[here] > 0, targets.values[here], -100)
        return device.put(device.host(tags))

    def order() -> list[np.ndarray]:
        shuffled = random.permutation(len(train))
        if "grouped" in ways:  # texts are sorted within groups of fifty batches, then the batches are shuffled
            pool = 50 * options.batch
            shuffled = np.concatenate([part[np.argsort(-train.lengths[part], kind="stable")]
                                       for part in np.array_split(shuffled, -(-len(train) // pool))])
        batches = [shuffled[i : i + options.batch] for i in range(0, len(train), options.batch)]
        return [batches[i] for i in random.permutation(len(batches))]

    def score(name: str) -> float:
        model.eval()
        part = encoded[name]
        by_length = np.argsort(part.lengths, kind="stable")
        shape = (int(part.offsets[-1]) if options.kind == "tag" else len(part), outputs)
        outputs_of_set = np.zeros(shape, np.float32)
        with torch.inference_mode(), device.autocast(dtype):
            for begin in range(0, len(part), 32):
                chosen = by_length[begin : begin + 32]
                logits = model(**inputs_of(part, chosen)).logits.float().cpu().numpy()
                for row, unit in enumerate(chosen):
                    if options.kind == "tag":
                        outputs_of_set[part.offsets[unit] : part.offsets[unit + 1]] = logits[row, : part.lengths[unit]]
                    else:
                        outputs_of_set[unit] = logits[row]
        model.train()
        return sets.kind.results(sets.eval_set(sets.evaluated[name], part, config), outputs_of_set).scores[options.metric]

    training, best, tested, step, fast_seconds, fast_tokens = 0.0, -np.inf, float("nan"), 0, 0.0, 0
    model.train()
    while step < total:
        began = fast_began = device.now()
        for chosen in order()[: total - step]:
            if step == FIRST_STEPS:
                fast_began = device.now()
            with device.autocast(dtype):
                loss = forward(**inputs_of(train, chosen), labels=labels_of(chosen)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            fast_tokens += int(train.lengths[chosen].sum()) if step >= FIRST_STEPS else 0
            step += 1
        ended = device.now()
        training += ended - began
        fast_seconds += ended - fast_began if step > FIRST_STEPS else 0.0
        if (value := score("validation")) > best:
            best, tested = value, score("test")
    print(json.dumps({"test": tested, "training": training,
                      "tokens_per_second": fast_tokens / fast_seconds if fast_seconds else float("nan")}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("model", "builtin:tiny"), ("kind", "classify"), ("train", "builtin:pydocs-labels"), ("validation", ""),
                          ("test", ""), ("metric", "accuracy"), ("text", "text"), ("text_pair", ""), ("label", "label"), ("seeds", "1,2,3"),
                          ("contestants", ON_GPU if on_gpu() else ON_CPU), ("worker", "")):
        parser.add_argument(f"--{name}", default=default)
    for name, kind, default in (("epochs", float, 3.0), ("lr", float, 1e-4), ("batch", int, 16), ("length", int, 128), ("seed", int, 0),
                                ("compile_limit", float, compile_limit())):
        parser.add_argument(f"--{name}", type=kind, default=default)
    options = parser.parse_args()
    if options.worker:
        return torch_worker(options)
    if not options.train.startswith("builtin:") and not (options.validation and options.test):
        parser.error("--validation and --test are missing: a training set in files needs both")
    record.stopped_by_exit()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.contestants.split(",")}
    try:
        for seed in map(int, options.seeds.split(",")):
            for name in list(results):  # in turn, so that a slow hour of the machine meets all of them
                with tempfile.TemporaryDirectory() as scratch:
                    one = run_jaxplm(options, seed, Path(scratch) / "run") if name == "jaxplm" else run_torch(options, name, seed)
                if one is None:  # past its time limit: not once more with the next seed
                    del results[name]
                    continue
                results[name].append(one)
                print(f"seed {seed}: {name}: test {options.metric} {one['test']:.4f}, training {one['training']:.0f} s,"
                      f" wall {one['wall']:.0f} s, {one['tokens_per_second']:,.0f} tokens/s", flush=True)
    finally:
        report(options, {name: runs for name, runs in results.items() if runs})


def report(options: argparse.Namespace, results: dict[str, list[dict[str, float]]]) -> None:
    """Print the table of the contestants that have finished, and append the record."""
    print(f"\n{'':<34}{'test ' + options.metric:>22}{'training s':>12}{'wall s':>9}{'jaxplm is':>11}{'tokens/s':>12}{'jaxplm is':>11}")
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}
    ours = medians.get("jaxplm", {"wall": float("nan"), "tokens_per_second": float("nan")})
    for name, runs in results.items():
        values, of = [run["test"] for run in runs], medians[name]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{name:<34}{statistics.mean(values):>13.4f} ± {spread:.4f}{of['training']:>12.0f}{of['wall']:>9.0f}"
              f"{of['wall'] / ours['wall']:>10.2f}×{of['tokens_per_second']:>12,.0f}"
              f"{ours['tokens_per_second'] / of['tokens_per_second']:>10.2f}×")
    record.append("finetune_vs_transformers", {"metric": options.metric, "runs": results, "medians": medians})


if __name__ == "__main__":
    main()
