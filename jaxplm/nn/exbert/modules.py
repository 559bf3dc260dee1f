"""Modules of exBERT (Tai et al. 2020, Findings of EMNLP): a table for new tokens, and a narrower block beside every block."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import Segments
from jaxplm.nn.blocks import Blocks
from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.layers import Compute, Linear

# A gate is σ(w·h + b) with w = 20 w' and b = 20 b'; the parameters `gate/kernel` and `gate/bias` are w' and b'. An optimizer
# like Adam moves every parameter by about its learning rate, and a gate that starts nearly closed has to move far before the
# extension has an effect; the factor makes it move twenty times as fast. Measured with a 6-layer BERT, 1,000 medical tokens
# and a frozen base, whose loss starts at 6.07 nats: after 100 steps it is 5.33 instead of 5.67 with b = 5. With b = 3 it is
# 5.29, but the divergence from the base is 50 times as large at the start.
GATE_SCALE = 20.0


def extension_config(base: EncoderConfig, tokens: int, share: float, gate_bias: float = ExtensionConfig.gate_bias) -> ExtensionConfig:
    """Return the sizes of an extension whose blocks have `share` of the base's widths and as many heads.

    The widths of attention and feed-forward layer are rounded. For the base size of BERT this gives the sizes of the paper:
    0.16 → 120/512, 0.33 → 252/1024, 0.66 → 504/2048, 1.0 → 768/3072.
    """
    multiple = 128 if base.ffn_width >= 1024 else 8
    ffn_width = max(1, round(share * base.ffn_width / multiple)) * multiple
    head_width = max(1, round(share * base.head_width))
    return ExtensionConfig(tokens, head_width * base.heads, base.heads, min(ffn_width, base.ffn_width), gate_bias)


class ExtensionBlocks(Blocks):
    """N blocks beside those of the base, each with a gate.

    They read and write the base's width D. Only the attention heads and the feed-forward layer inside are narrower.
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        assert config.extension is not None
        own = config.extension
        super().__init__(dataclasses.replace(config, heads=own.heads, head_width=own.head_width, ffn_width=own.ffn_width), rngs)
        self.gate = Linear(rngs.params(), (config.width,), (), 0.0, (config.layers,))
        self.gate.bias = nnx.Param(jnp.full((config.layers,), own.gate_bias / GATE_SCALE, jnp.float32))

    def share(self, h_BLD: jax.Array) -> jax.Array:
        """Return 1 - σ(w·h + b), the extension's share of the output for each token of a block's input: [B, L, 1] float32."""
        logit_BL = jnp.einsum("bld,d->bl", h_BLD.astype(jnp.float32), self.gate.kernel[...], precision=jax.lax.Precision.HIGHEST)
        # σ(-x) instead of 1 - σ(x), which would lose digits.
        return jax.nn.sigmoid(-GATE_SCALE * (logit_BL + self.gate.bias[...][None, None]))[..., None]


class GatedBlocks(nnx.Module):
    """A block and an extension block side by side: g Base(h) + (1 - g) Ext(h), with g = σ(w·h + b)."""

    def __init__(self, base: Blocks, extension: ExtensionBlocks) -> None:
        self.base = base
        self.extension = extension

    def __call__(self, h_BLD: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return the output of one pair of blocks, [B, L, D]; called on a slice of the stacks."""
        keys = (None, None) if key is None else jax.random.split(key)
        base = self.base(h_BLD, segments, keys[0], compute).astype(jnp.float32)
        extension = self.extension(h_BLD, segments, keys[1], compute).astype(jnp.float32)
        return (base + self.extension.share(h_BLD) * (extension - base)).astype(h_BLD.dtype)


class Extension(nnx.Module):
    """The table of the new tokens, [Vxp, D], and the extension's blocks."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        assert config.extension is not None
        self.first = config.vocab_size
        shape = (config.extension.padded_tokens, config.width)
        self.word = nnx.Param(config.init_std * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.blocks = ExtensionBlocks(config, rngs)

    def rows(self, base_VD: jax.Array, input_ids: jax.Array) -> jax.Array:
        """Return the row of each token, [B, L, D]: of the own table for ids from `first` on, else of the base's table [Vp, D].

        A token's gradient goes to exactly one of the two tables.
        """
        own = (input_ids >= self.first)[..., None]
        old_rows = base_VD[jnp.minimum(input_ids, self.first - 1)]
        new_rows = self.word[...][jnp.maximum(input_ids - self.first, 0)]
        return jnp.where(own, new_rows, old_rows)
