"""Embeddings and post-LayerNorm transformer blocks of BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention import attend, segment_bias
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.layers import Affine, Compute, Norm, dense, dropout, gelu, layer_norm


class Embeddings(nnx.Module):
    """Word + position + token-type rows, LayerNorm, dropout."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config

        def table(rows: int) -> nnx.Param[jax.Array]:
            return nnx.Param(config.init_std * jax.random.normal(rngs.params(), (rows, config.width), jnp.float32))

        self.word = table(config.padded_vocab)
        self.position = table(config.max_positions + config.position_offset)
        if config.token_types:
            self.token_type = table(config.token_types)
        self.norm = Norm(config.width)

    def __call__(self, input_ids: jax.Array, position_ids: jax.Array, token_types: jax.Array | None,
                 key: jax.Array | None, compute: Compute) -> jax.Array:
        """input_ids, position_ids (from 0), token_types (None = all 0): [B, L] int32 → [B, L, D]."""
        x = self.word[...][input_ids] + self.position[...][position_ids + self.config.position_offset]
        if self.config.token_types:
            table = self.token_type[...]
            x = x + (table[0][None, None] if token_types is None else table[token_types])
        x = layer_norm(x, self.norm, self.config.norm_eps).astype(compute.activations)
        return dropout(x, self.config.dropout, key)


class Attention(nnx.Module):
    """Self-attention with one fused product for queries, keys and values; its residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        c, stack = config, (config.layers,)
        heads = (c.heads, c.head_width)
        self.config = config
        self.qkv = Affine(rngs.params(), (c.width,), (3, *heads), c.init_std, stack)
        self.out = Affine(rngs.params(), heads, (c.width,), c.init_std, stack)
        self.norm = Norm(c.width, stack)

    def __call__(self, x: jax.Array, bias: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        keys = (None, None) if key is None else jax.random.split(key)
        qkv = dense(x, self.qkv, compute)  # [B, L, 3, H, Dh]
        q, k, v = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
        mixed = attend(q, k, v, bias, self.config.attention_dropout, keys[0])
        y = dropout(dense(mixed, self.out, compute, axes=2), self.config.dropout, keys[1])
        return layer_norm(x + y, self.norm, self.config.norm_eps)


class FeedForward(nnx.Module):
    """Two products with erf-GELU between; its residual and LayerNorm."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        c, stack = config, (config.layers,)
        self.config = config
        self.up = Affine(rngs.params(), (c.width,), (c.ffn_width,), c.init_std, stack)
        self.down = Affine(rngs.params(), (c.ffn_width,), (c.width,), c.init_std, stack)
        self.norm = Norm(c.width, stack)

    def __call__(self, x: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        y = dense(gelu(dense(x, self.up, compute)), self.down, compute)
        return layer_norm(x + dropout(y, self.config.dropout, key), self.norm, self.config.norm_eps)


class Blocks(nnx.Module):
    """N transformer blocks; every leaf carries the leading axis [N, ...], so one layout serves loop and unrolled code."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.attention = Attention(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        """One block: called on a slice of the stack. x [B, L, D] → [B, L, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        return self.mlp(self.attention(x, bias, keys[0], compute), keys[1], compute)


class Encoder(nnx.Module):
    """Embeddings and N blocks: tokens [B, L] → hidden states [B, L, D]."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embeddings = Embeddings(config, rngs)
        self.blocks = Blocks(config, rngs)

    def __call__(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                 token_types: jax.Array | None = None, *, key: jax.Array | None = None,
                 compute: Compute = Compute()) -> jax.Array:
        """Hidden states of the last layer, [B, L, D] in `compute.activations`.

        Args:
          input_ids: [B, L] int32.
          segment_ids: [B, L] int32, 0 for padding; tokens attend within their own segment.
          position_ids: [B, L] int32, from 0 (RoBERTa's offset is added here).
          token_types: [B, L] int32, or None for all zeros.
          key: dropout's; None turns dropout off. Split by layer, so no two layers share a mask.
        """
        return self._run(input_ids, segment_ids, position_ids, token_types, key, compute, every=False)[0]

    def every_layer(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                    token_types: jax.Array | None = None, *, key: jax.Array | None = None,
                    compute: Compute = Compute()) -> jax.Array:
        """Hidden states of the embeddings and of all N blocks, [N + 1, B, L, D]; arguments as in a call."""
        _, (first, rest) = self._run(input_ids, segment_ids, position_ids, token_types, key, compute, every=True)
        assert rest is not None
        return jnp.concatenate([first[None], rest])

    def _run(self, input_ids, segment_ids, position_ids, token_types, key, compute, *,
             every: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
        """The last layer [B, L, D]; and the embeddings [B, L, D] with, if `every`, all blocks [N, B, L, D]."""
        n = self.config.layers
        keys = None if key is None else jax.random.split(key, n + 1)
        first = self.embeddings(input_ids, position_ids, token_types, None if keys is None else keys[n], compute)
        bias = segment_bias(segment_ids)
        graph, stacked = nnx.split(self.blocks)

        def one_block(x: jax.Array, layer: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, jax.Array | None]:
            params, key = layer
            y = nnx.merge(graph, params)(x, bias, key, compute)
            return y, y if every else None

        last, rest = jax.lax.scan(one_block, first, (stacked, None if keys is None else keys[:n]),
                                  unroll=n if compute.unroll else 1)
        return last, (first, rest)
