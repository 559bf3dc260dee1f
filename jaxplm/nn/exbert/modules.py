"""exBERT (Tai et al. 2020, Findings of EMNLP): rows for new tokens, and a narrower block beside every block of an encoder."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import Segments
from jaxplm.nn.blocks import Blocks
from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.layers import Compute, Linear

# The parameters of the base, all that are not the extension's: what `train.freeze` holds for extension-only training.
BASE = r"(encoder/(embeddings|blocks)|mlm_head|pooler|pair_head)/"


# Gates are parametrised as w = 20 w', b = 20 b'. An optimizer like Adam moves every number by about its learning rate, and a
# gate that starts nearly closed has a way to go before the extension counts: so it is twenty times as quick. `gate/kernel`
# and `gate/bias` are w' and b'. A 6-layer BERT with 1,000 medical tokens, base frozen, after 100 steps, at the start 6.07
# nats: with b = 5, 5.33 and not 5.67; with b = 3, 5.29, but it begins with 50 times the divergence from the base.
GATE_SCALE = 20.0


def extension_config(base: EncoderConfig, tokens: int, share: float, gate_bias: float = ExtensionConfig.gate_bias) -> ExtensionConfig:
    """The sizes of an extension that is `share` of the base's blocks, with as many heads.

    Attention and feed-forward width are rounded to what divides well. For the base size of BERT the paper's sizes
    come out: 0.16 → 120/512, 0.33 → 252/1024, 0.66 → 504/2048, 1.0 → 768/3072.
    """
    multiple = 128 if base.ffn_width >= 1024 else 8
    ffn_width = max(1, round(share * base.ffn_width / multiple)) * multiple
    head_width = max(1, round(share * base.head_width))
    return ExtensionConfig(tokens, head_width * base.heads, base.heads, min(ffn_width, base.ffn_width), gate_bias)


class ExtensionBlocks(Blocks):
    """N blocks beside those of the base, each with a gate. They read and write the base's width D; what is narrower is
    inside: the heads of the attention and the feed-forward layer."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        assert config.extension is not None
        own = config.extension
        super().__init__(dataclasses.replace(config, heads=own.heads, head_width=own.head_width, ffn_width=own.ffn_width), rngs)
        self.gate = Linear(rngs.params(), (config.width,), (), 0.0, (config.layers,))
        self.gate.bias = nnx.Param(jnp.full((config.layers,), own.gate_bias / GATE_SCALE, jnp.float32))

    def share(self, h: jax.Array) -> jax.Array:
        """1 - σ(w·h + b), the extension's share of the output, for each token of a block's input h: [B, L, D] → [B, L, 1] float32."""
        logit = jnp.einsum("bld,d->bl", h.astype(jnp.float32), self.gate.kernel[...], precision=jax.lax.Precision.HIGHEST)
        return jax.nn.sigmoid(-GATE_SCALE * (logit + self.gate.bias[...][None, None]))[..., None]  # 1 - σ would lose its digits


class GatedBlocks(nnx.Module):
    """Block and extension block side by side: g Base(h) + (1 - g) Ext(h), g = σ(w·h + b)."""

    def __init__(self, base: Blocks, extension: ExtensionBlocks) -> None:
        self.base, self.extension = base, extension

    def __call__(self, h: jax.Array, segments: Segments, key: jax.Array | None, compute: Compute) -> jax.Array:
        """One pair of blocks: called on a slice of the stacks. h [B, L, D] → [B, L, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        base = self.base(h, segments, keys[0], compute).astype(jnp.float32)
        extension = self.extension(h, segments, keys[1], compute).astype(jnp.float32)
        return (base + self.extension.share(h) * (extension - base)).astype(h.dtype)


class Extension(nnx.Module):
    """The table of the new tokens, [Vxp, D], and the extension's blocks."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        assert config.extension is not None
        self.first = config.vocab_size
        shape = (config.extension.padded_tokens, config.width)
        self.word = nnx.Param(config.init_std * jax.random.normal(rngs.params(), shape, jnp.float32))
        self.blocks = ExtensionBlocks(config, rngs)

    def rows(self, base: jax.Array, input_ids: jax.Array) -> jax.Array:
        """The row of each token, from `base` [Vp, D] or, for ids from `first` on, from the own table; never from both.
        input_ids [B, L] → [B, L, D]."""
        own = (input_ids >= self.first)[..., None]
        old_rows = base[jnp.minimum(input_ids, self.first - 1)]
        new_rows = self.word[...][jnp.maximum(input_ids - self.first, 0)]
        return jnp.where(own, new_rows, old_rows)
