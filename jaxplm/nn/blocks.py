"""Transformer blocks with LayerNorm after each residual sum: attention and feed-forward layer of BERT (Devlin et al. 2019).

The parameters of all N blocks are stacked, [N, ...]. Modules are called on a slice of the stack, that is on one block.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from jaxplm.nn.attention.dispatch import Segments, attend, takes_apart
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.layers import Compute, LayerNorm, Linear, dense_gelu, dense_qkv, dense_residual_norm
from jaxplm.nn.paths import by_path, stack_of


class Attention(nnx.Module):
    """Self-attention, its residual and LayerNorm. One product computes queries, keys and values."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        stack = (config.layers,)
        heads = (config.heads, config.head_width)
        self.config = config
        self.qkv = Linear(rngs.params(), (config.width,), (3, *heads), config.init_std, stack)
        self.out = Linear(rngs.params(), heads, (config.width,), config.init_std, stack)
        self.norm = LayerNorm(config.width, stack)

    def __call__(self, x_BLD: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return [B, L, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        qkv, x_BLD = dense_qkv(x_BLD, self.qkv, compute, takes_apart(segments, self.config.head_width, compute))
        with jax.named_scope("attention"):
            mixed_BLHd = attend(qkv, segments, self.config.attention_dropout, keys[0], compute)
        return dense_residual_norm(x_BLD, mixed_BLHd, self.out, self.norm, self.config.dropout, keys[1], self.config.norm_eps, compute,
                                   axes=2)


class FeedForward(nnx.Module):
    """Two linear layers with GELU between them, the residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        stack = (config.layers,)
        self.config = config
        self.up = Linear(rngs.params(), (config.width,), (config.ffn_width,), config.init_std, stack)
        self.down = Linear(rngs.params(), (config.ffn_width,), (config.width,), config.init_std, stack)
        self.norm = LayerNorm(config.width, stack)

    def __call__(self, x_BLD: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return [B, L, D]."""
        hidden_BLF = dense_gelu(x_BLD, self.up, compute)
        return dense_residual_norm(x_BLD, hidden_BLF, self.down, self.norm, self.config.dropout, key, self.config.norm_eps, compute)


class Blocks(nnx.Module):
    """N transformer blocks. Every leaf has the leading axis [N, ...], so a loop and unrolled code use one layout."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(self, x_BLD: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return the output of one block, [B, L, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        return self.mlp(self.attention(x_BLD, segments, keys[0], compute), keys[1], compute)


def map_blocks(function: Callable[..., Any], encoder: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """Return an encoder's parameters with `function` applied to every stacked leaf [N, ...], those of an extension included.

    `function` also gets the leaves of the `others` at the same path. Leaves that are not stacked stay as they are.
    """
    return by_path(lambda name, leaf, *rest: function(leaf, *rest) if stack_of(name) else leaf, encoder, *others)
