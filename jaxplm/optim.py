"""AdamW with the masks that pre-training wants, as optax transformations over parameter paths."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxplm.config import Train
from jaxplm.errors import UserError

Tree = Any


def path_name(path: tuple[Any, ...]) -> str:
    """'encoder/blocks/mlp/up/kernel' for a key path of `jax.tree_util`."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)


def by_path(function: Any, tree: Tree) -> Tree:
    """`function(path_name, leaf)` over every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def decays(name: str) -> bool:
    """Weight decay is for kernels and tables: not for biases, not for LayerNorm (Devlin et al. 2019)."""
    return not (name.endswith("bias") or "/norm/" in name)


def frozen_labels(params: Tree, patterns: tuple[str, ...]) -> Tree:
    """A tree of 'frozen' and 'trained': a leaf is frozen if a pattern matches at the start of its path.

    Raises UserError for a pattern that matches nothing, or if nothing is left to train.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in names):
            begin = sorted({"/".join(name.split("/")[:2]) for name in names})
            raise UserError(f"train.freeze={pattern!r} matches no parameter; their paths begin with {', '.join(begin)}")
    labels = by_path(lambda name, _: "frozen" if any(re.match(p, name) for p in patterns) else "trained", params)
    if all(label == "frozen" for label in jax.tree.leaves(labels)):
        raise UserError(f"train.freeze={patterns} freezes every parameter: nothing is left to train")
    return labels


def schedule(train: Train, steps: int) -> optax.Schedule:
    """Learning rate of each step: linear warm-up from 0, then linear or cosine decay to 0, or constant.

    Step t (from 0) gets the value at t + 1 of warm-up, so that the first update already moves.
    """
    warmup = round(train.warmup * steps) if train.warmup < 1 else int(train.warmup)
    if warmup >= steps > 0:
        raise UserError(f"train.warmup={train.warmup:g} is {warmup} steps, but there are only {steps}")
    peak, rest = train.learning_rate, max(steps - warmup, 1)

    def rate(step: Any) -> Any:
        now = jnp.asarray(step, jnp.float32)
        rising = (now + 1) / max(warmup, 1)
        progress = jnp.clip((now - warmup) / rest, 0, 1)
        falling = {"linear": 1 - progress, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * progress)),
                   "constant": jnp.ones_like(progress)}[train.schedule]
        return peak * jnp.where(now < warmup, rising, falling)

    return rate


def layer_scale(params: Tree, decay: float) -> Tree:
    """Learning-rate multipliers: 1 for what stands on the encoder, decay^(N-i) for block i, decay^(N+1) for embeddings.

    For stacked leaves [N, ...] the multiplier is [N, 1, ...] (Howard & Ruder 2018, discriminative fine-tuning).
    """
    def scale(name: str, leaf: jax.Array) -> jax.Array | float:
        if name.startswith("encoder/blocks/"):
            n = leaf.shape[0]
            return decay ** jnp.arange(n, 0, -1, dtype=jnp.float32).reshape((n,) + (1,) * (leaf.ndim - 1))
        if name.startswith("encoder/embeddings/"):
            return decay ** (blocks + 1)
        return 1.0

    blocks = params["encoder"]["blocks"]["mlp"]["up"]["kernel"].shape[0]
    return by_path(scale, params)


def optimizer(train: Train, steps: int, params: Tree) -> optax.GradientTransformation:
    """Clip by global norm → AdamW (Loshchilov & Hutter 2019, bias correction on) → layer-wise rates; frozen leaves: zero.

    Frozen leaves get `set_to_zero` through `optax.partition`, so no moments exist for them.
    `params` may be abstract; only paths and shapes are read.
    """
    parts = []
    if train.clip:
        parts.append(optax.clip_by_global_norm(train.clip))
    parts.append(optax.adamw(schedule(train, steps), b1=train.beta1, b2=train.beta2, eps=train.epsilon,
                             weight_decay=train.weight_decay,
                             mask=lambda tree: by_path(lambda name, _: decays(name), tree)))
    if train.layer_decay != 1.0:
        def rescale(updates: Tree, _: Tree = None) -> Tree:
            # Frozen leaves are masked nodes here, not arrays; scale what is there.
            scales = layer_scale(params, train.layer_decay)
            return jax.tree.map(lambda u, s: u * s, updates, scales) if not train.freeze else by_path(
                lambda name, u: u * named(scales)[name], updates)
        parts.append(optax.stateless(rescale))
    tx = optax.chain(*parts)
    if train.freeze:
        labels = frozen_labels(params, train.freeze)
        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)
    return tx


def named(tree: Tree) -> dict[str, Any]:
    """{'encoder/...': leaf}"""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
