"""Extended models of exBERT for tests, and functions of theirs that are compiled once."""

import functools
import runpy
from pathlib import Path

import checkpoints
import jax
import numpy as np
import pytest
from helpers import tiny_config

from jaxplm import hf, nn
from jaxplm.nn.exbert.modules import GATE_SCALE

TOKENS = 75
# What the recipe trains: the extension only.
FREEZE = runpy.run_path(str(Path(__file__).parents[1] / "configs" / "exbert.py"))["get_config"]().train.freeze


@functools.partial(jax.jit, static_argnums=0)
def call(of, params, *args):
    """Return `method(module, *args)` for of = (graph, method), compiled once per shape; uncompiled, each loop would be compiled again."""
    graph, method = of
    return method(nn.merge_params(graph, params), *args)


def hidden(module, ids, segments, positions):
    return module.encoder(ids, segments, positions)


def every_layer(module, ids, segments, positions):
    return module.encoder.every_layer(ids, segments, positions)


def mlm_logits(module, ids, mask):
    return module.mlm_logits(ids, mask)


def inside(module, ids):
    states = module.hidden_states(ids)
    return module.mlm_logits(ids), module.mlm_head.transform(states, nn.Compute())


def masked_logits(module, batch):
    states = module.masked_states(batch.input_ids, batch.segment_ids, batch.position_ids, batch.mlm_positions)
    return module.decoded(states, nn.Compute())


def new_rows(width: int, tokens: int = TOKENS) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return random.normal(0, 0.05, (tokens, width)).astype(np.float32), random.normal(0, 0.1, tokens).astype(np.float32)


def extended(base: nn.EncoderConfig, params: nn.ParamTree, share: float = 0.33, gate_bias: float | None = None, **options):
    sizes = nn.extension_config(base, TOKENS, share) if gate_bias is None else nn.extension_config(base, TOKENS, share, gate_bias)
    return nn.extend_params(params, base, sizes, *new_rows(base.width), **options)


def shaken(params: nn.ParamTree) -> nn.ParamTree:
    """The same with gates that are half open and differ from token to token, and every leaf of the extension moved."""
    random = np.random.default_rng(6)
    own = params["encoder"]["extension"]["blocks"]
    moved = jax.tree.map(lambda leaf: leaf + 0.05 * random.standard_normal(leaf.shape, np.float32), own)
    for name, spread in (("kernel", 0.05), ("bias", 0.5)):  # of w and b
        moved["gate"][name] = random.normal(0, spread / GATE_SCALE, moved["gate"][name].shape).astype(np.float32)
    extension = {**params["encoder"]["extension"], "blocks": moved}
    return {**params, "encoder": {**params["encoder"], "extension": extension}}


@pytest.fixture(scope="module", name="tiny")
def small_extended():
    """(config, params) of an extended BERT of odd sizes, gates half open."""
    base = tiny_config()
    params, config = extended(base, nn.random_params(base, 0))
    return config, shaken(params)


@pytest.fixture(scope="module", name="base", params=["bert", "roberta"])
def base_checkpoint(request, tmp_path_factory):
    """A checkpoint whose weights are large enough that every part of it matters."""
    return hf.load(str(checkpoints.save(tmp_path_factory.mktemp("base") / request.param, request.param)))


def logits(config, params, ids, mask=None):
    mask = np.ones_like(ids) if mask is None else mask
    return np.asarray(call((nn.abstract_model(config)[0], mlm_logits), params, ids, mask))


def old_text(base, rows=4, length=20):
    random = np.random.default_rng(2)
    ids = random.integers(5, base.config.vocab_size, (rows, length)).astype(np.int32)
    mask = (np.arange(length)[None] < random.integers(8, length + 1, rows)[:, None]).astype(np.int32)
    return ids, mask
