"""Post-LayerNorm transformer blocks, stacked: attention and feed-forward of BERT (Devlin et al. 2019)."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxplm.nn.attention.dispatch import Segments, attend
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.layers import Compute, LayerNorm, Linear, dense, dropout, gelu, layer_norm


class Attention(nnx.Module):
    """Self-attention with one fused product for queries, keys and values; its residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        c, stack = config, (config.layers,)
        heads = (c.heads, c.head_width)
        self.config = config
        self.qkv = Linear(rngs.params(), (c.width,), (3, *heads), c.init_std, stack)
        self.out = Linear(rngs.params(), heads, (c.width,), c.init_std, stack)
        self.norm = LayerNorm(c.width, stack)

    def __call__(self, x: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        keys = (None, None) if key is None else jax.random.split(key)
        qkv = dense(x, self.qkv, compute)  # [B, L, 3, H, Dh]
        with jax.named_scope("attention"):
            mixed = attend(qkv, segments, self.config.attention_dropout, keys[0], compute)
        y = dropout(dense(mixed, self.out, compute, axes=2), self.config.dropout, keys[1])
        return layer_norm(x + y, self.norm, self.config.norm_eps)


class FeedForward(nnx.Module):
    """Two products with erf-GELU between; its residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        c, stack = config, (config.layers,)
        self.config = config
        self.up = Linear(rngs.params(), (c.width,), (c.ffn_width,), c.init_std, stack)
        self.down = Linear(rngs.params(), (c.ffn_width,), (c.width,), c.init_std, stack)
        self.norm = LayerNorm(c.width, stack)

    def __call__(self, x: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        y = dense(gelu(dense(x, self.up, compute)), self.down, compute)
        return layer_norm(x + dropout(y, self.config.dropout, key), self.norm, self.config.norm_eps)


class Blocks(nnx.Module):
    """N transformer blocks; every leaf carries the leading axis [N, ...], so one layout serves loop and unrolled code."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(self, x: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        """One block: called on a slice of the stack. x [B, L, D] → [B, L, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        return self.mlp(self.attention(x, segments, keys[0], compute), keys[1], compute)


def map_blocks(function: Callable[..., Any], encoder: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """The parameters of an encoder with `function` applied to every stacked leaf [N, ...] and to those of `others` at the
    same place; the extension's blocks are such, too."""
    found = {**encoder, "blocks": jax.tree.map(function, *(tree["blocks"] for tree in (encoder, *others)))}
    if "extension" in encoder:
        own = [tree["extension"]["blocks"] for tree in (encoder, *others)]
        found["extension"] = {**encoder["extension"], "blocks": jax.tree.map(function, *own)}
    return found
