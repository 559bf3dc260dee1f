"""Compare the speed of text embeddings in jaxplm with that of PyTorch as sentence-transformers uses it.

    python benchmarks/embed_rate.py [--model=DIR] [--corpus=FILE.jsonl] [--text=text] [--seq_len=128] [--rounds=3] \
        [--texts_per_batch=32] [--compile_limit=90]

Model and corpus are paths or built-ins. PyTorch: texts sorted by length, in batches (32 texts on a CPU, 256 on a GPU), each
padded to its longest text, SDPA, mean over the tokens, in `torch.inference_mode`. On a GPU its weights are in the number
format of the contestant, batches come from pinned memory while it computes, and vectors are fetched once at the end. A
process that uses torch.compile is ended after --compile_limit seconds.
jaxplm: as `jaxplm.embed`, texts packed into rows of one length. Both include the tokenization and give the vectors in
the order of the texts. Each contestant runs in a process of its own, one after the other, `rounds` times. In each a
part of the corpus comes first and is not counted (compilation, warm-up).

It prints texts per second, medians over the rounds, the ratio to each contestant, and the cosine to PyTorch's float32
vectors. A line of JSON with everything is appended to benchmarks/results.jsonl.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from allocation import HUGE_PAGES, TUNED_MALLOC
from workers import COMPILED, compile_limit, on_gpu, run_in_turn, selected

from jaxplm.devices.compute import resolve_compute

ON_CPU = {
    "jaxplm": ("jaxplm-bfloat16", HUGE_PAGES),
    "jaxplm float32": ("jaxplm-float32", HUGE_PAGES),
    "torch float32": ("torch-float32", {}),
    "torch bfloat16": ("torch-bfloat16", {}),
    "torch float32, tuned malloc": ("torch-float32", TUNED_MALLOC),
    "torch bfloat16, tuned malloc": ("torch-bfloat16", TUNED_MALLOC),
}
ON_GPU = {
    "jaxplm": ("jaxplm-bfloat16", HUGE_PAGES),
    "jaxplm float32": ("jaxplm-float32", HUGE_PAGES),
    "torch float32": ("torch-float32", {}),
    "torch bfloat16": ("torch-bfloat16", {}),
    f"torch bfloat16, {COMPILED}": ("torch-bfloat16-compiled", {}),
}
REFERENCE = "torch float32"
WARM_UP = 512  # texts


def read_texts(options: argparse.Namespace) -> list[str]:
    """Return the texts of the corpus, one per row."""
    from jaxplm.data.sources.texts import open_texts

    return list(open_texts(options.corpus, text=options.text, lines="true", max_rows=options.texts or None, every_row=True))


def jaxplm_worker(options: argparse.Namespace, texts: list[str], dtype: Any) -> tuple[float, np.ndarray]:
    from jaxplm.config import Compute, Embed, Mesh
    from jaxplm.data.labelled.row_length import row_length
    from jaxplm.data.labelled.text_blocks import text_blocks
    from jaxplm.devices import sharding
    from jaxplm.recipes.embed.encoder import TextEncoder
    from jaxplm.recipes.embed.model import load_embedding_model

    model = load_embedding_model(options.model, Embed())
    beginning = next(text_blocks(texts, model.tokenizer, options.seq_len, max_rows=4096, max_chars=1 << 20))
    mesh = sharding.make_mesh(Mesh())
    encoder = TextEncoder(model, Embed(), mesh, resolve_compute(Compute(dtype), mesh), rows=options.rows,
                          length=row_length(beginning.encoded.lengths, options.seq_len, model.config.width))

    def vectors(texts: list[str]) -> np.ndarray:
        blocks = text_blocks(texts, model.tokenizer, options.seq_len)
        return np.concatenate([encoder(encoder.batches(block.encoded)) for block in blocks])

    vectors(texts[:WARM_UP])
    began = time.perf_counter()
    result = vectors(texts)
    return time.perf_counter() - began, result


def torch_worker(options: argparse.Namespace, texts: list[str], dtype: str, compiled: bool) -> tuple[float, np.ndarray]:
    """Return the seconds and the vectors."""
    import torch
    from torch_device import TorchDevice
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from jaxplm import hf

    device = TorchDevice()
    directory = hf.resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    weights = torch.bfloat16 if device.is_gpu and dtype == "bfloat16" else torch.float32
    # The base model of the masked LM: loading the base model itself would warn of a missing pooler, which is not used.
    model = AutoModelForMaskedLM.from_pretrained(directory, dtype=weights, attn_implementation="sdpa").base_model.eval().to(device.name)
    forward = torch.compile(model, dynamic=True) if compiled else model

    def vectors(texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = []
        with torch.inference_mode(), device.autocast(dtype if weights == torch.float32 else "float32"):
            for begin in range(0, len(texts), options.texts_per_batch):
                chosen = [texts[i] for i in order[begin : begin + options.texts_per_batch]]
                arrays = tokenizer(chosen, padding=True, truncation=True, max_length=options.seq_len, return_tensors="np")
                inputs = {name: device.put(device.host(array)) for name, array in arrays.items()}
                hidden = forward(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"].unsqueeze(-1).float()
                parts.append((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9))
            sorted_vectors = torch.cat(parts).cpu().numpy()
        in_order = np.empty_like(sorted_vectors)
        in_order[order] = sorted_vectors
        return in_order

    vectors(texts[:WARM_UP])
    began = device.now()
    result = vectors(texts)
    return device.now() - began, result


def work(options: argparse.Namespace) -> None:
    """Run one contestant in this process: write its vectors and print its seconds."""
    package, dtype, *compiled = options.worker.split("-")
    texts = read_texts(options)
    seconds, vectors = jaxplm_worker(options, texts, dtype) if package == "jaxplm" else torch_worker(options, texts, dtype, bool(compiled))
    np.save(options.vectors, vectors)
    print(json.dumps(seconds))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosines [n] of the rows of two arrays."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny", help="directory in transformers' format")
    parser.add_argument("--corpus", default="builtin:pydocs")
    parser.add_argument("--text", default="text", help="column of the texts")
    parser.add_argument("--texts", type=int, default=0, help="how many texts; 0: all")
    parser.add_argument("--seq_len", type=int, default=128)
    parser.add_argument("--rows", type=int, default=128 if on_gpu() else 32, help="jaxplm's rows per batch")
    parser.add_argument("--texts_per_batch", type=int, default=256 if on_gpu() else 32, help="PyTorch's texts per batch")
    parser.add_argument("--compile_limit", type=float, default=compile_limit(), help="seconds of a process with torch.compile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated beginnings of contestants' names")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--vectors", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)

    record.stopped_by_exit()
    chosen = selected(ON_GPU if on_gpu() else ON_CPU, options.only)
    count = len(read_texts(options))
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    vectors: dict[str, np.ndarray] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "vectors.npy"
            for turn, name, seconds in run_in_turn(chosen, options.rounds, f"--vectors={path}", compile_limit=options.compile_limit):
                rates[name].append(count / seconds)
                vectors[name] = np.load(path)
                print(f"round {turn}: {name}: {rates[name][-1]:,.1f} texts/s", flush=True)
    finally:
        report(options, count, rates, vectors)


def report(options: argparse.Namespace, count: int, rates: dict[str, list[float]], vectors: dict[str, np.ndarray]) -> None:
    """Print the table of the contestants that have finished, and append the record."""
    medians = {name: statistics.median(values) for name, values in rates.items() if values}
    closeness = {name: cosines(array, vectors[REFERENCE]) for name, array in vectors.items()} if REFERENCE in vectors else {}
    print(f"\n{count:,} texts\n{'':<30}{'texts/s':>10}{'jaxplm is':>12}{'cosine: min':>14}{'mean':>12}")
    for name, rate in medians.items():
        near = closeness.get(name)
        shown = "" if near is None else f"{near.min():>14.7f}{near.mean():>12.7f}"
        print(f"{name:<30}{rate:>10,.1f}{medians.get('jaxplm', float('nan')) / rate:>11.2f}×{shown}")
    record.append("embed_rate", {
        "texts": count, "seq_len": options.seq_len, "texts_per_second": medians, "all": rates,
        "cosine": {name: {"min": float(near.min()), "mean": float(near.mean())} for name, near in closeness.items()}})


if __name__ == "__main__":
    main()
