"""Small models, batches and tokenizers that several tests need."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm import config, nn
from jaxplm.data.batch import Batch
from jaxplm.devices import sharding
from jaxplm.engine.setup import TrainSetup
from jaxplm.tasks import Task
from jaxplm.tasks.mlm import MaskedLanguageModelling

WORDS = "the cat dog sat ran on under mat tree house river with and a small big old new red green of to in was is".split()


def tiny_config(**changes) -> nn.EncoderConfig:
    """Return 3 layers, 5 heads × 24, vocabulary 1,013: nothing is a power of two. No dropout."""
    fields = {"model_type": "bert", "vocab_size": 1013, "width": 120, "layers": 3, "heads": 5, "ffn_width": 200,
              "max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0}
    return nn.EncoderConfig(**(fields | changes))


def random_batch(rows: int = 8, length: int = 24, masked: int = 4, vocab: int = 1013, seed: int = 0) -> Batch:
    """Return rows of two texts and some padding each; the number of masked positions differs from row to row."""
    random = np.random.default_rng(seed)
    cuts = random.integers(4, length - 8, rows)
    ends = random.integers(length - 6, length + 1, rows)
    place = np.arange(length)[None]
    segments = np.where(place < cuts[:, None], 1, np.where(place < ends[:, None], 2, 0))
    positions = np.where(segments == 2, place - cuts[:, None], np.where(segments == 1, place, 0))
    used = random.integers(1, masked + 1, rows)
    weights = (np.arange(masked)[None] < used[:, None]).astype(np.float32)
    chosen = np.stack([np.sort(random.choice(int(end), masked, replace=False)) for end in ends])
    return Batch(random.integers(5, vocab, (rows, length)).astype(np.int32), segments.astype(np.int32), positions.astype(np.int32),
                 (chosen * weights).astype(np.int32), random.integers(5, vocab, (rows, masked)).astype(np.int32), weights)


def trainer(shape: nn.EncoderConfig, mesh: jax.sharding.Mesh | None = None, *, compute: nn.Compute = nn.Compute(),
            seed: int = 0, task: Task | None = None, **train):
    """Return (state, train step, batch placer) for random weights of `shape`; the task is masked language modelling by default.

    Equal arguments share the step, which is traced and compiled once. The state is new each time: a step may take its memory.
    """
    mesh = sharding.make_mesh(config.Mesh(), jax.devices()[:1]) if mesh is None else mesh
    setup = _setup(shape, mesh, compute, seed, task, tuple(sorted(train.items())))
    return setup.first_state(_random_params(shape)), setup.train_step, lambda batch: sharding.put_batch(batch, len(batch.input_ids), mesh)


@functools.cache
def _setup(shape: nn.EncoderConfig, mesh: jax.sharding.Mesh, compute: nn.Compute, seed: int, task: Task | None,
           train: tuple[tuple[str, Any], ...]) -> TrainSetup:
    settings = config.Train(**({"steps": 100, "warmup": 2, "learning_rate": 1e-3} | dict(train)))
    graph, abstract = nn.abstract_model(shape)
    return TrainSetup(graph, abstract, task or MaskedLanguageModelling(), settings, settings.steps or 1, mesh, compute, seed=seed)


@functools.cache
def _random_params(shape: nn.EncoderConfig) -> nn.ParamTree:
    return jax.device_get(nn.random_params(shape, 1))


def wordpiece(directory: Path, words: list[str] = WORDS) -> Path:
    """Write a BERT tokenizer that knows `words`, letters and their continuations, as vocab.txt alone."""
    directory.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *words, *(l for l in letters if l not in words),
             *("##" + l for l in letters)]
    (directory / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    (directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return directory


def sentences(count: int, seed: int = 0, length: int = 12) -> list[str]:
    """Return random sentences over WORDS."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(3, length))) + "." for _ in range(count)]


def same(a, b) -> bool:
    """Return whether two trees are bitwise equal."""
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def as_jax(batch: Batch) -> Batch:
    return jax.tree.map(jnp.asarray, batch)
