"""The heads of pre-training: masked language modelling, and the classification of pairs of segments.

Shapes: B rows, D width, Vp rows of the word table, Vxp rows of the extension's table, R rows of either; "..." is any number of axes.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.cpu_kernels import add_wide_bias, low_precision_matmul
from jaxplm.nn.gpu_products import bfloat16_logits
from jaxplm.nn.layers import Compute, LayerNorm, Linear, dense, gelu, layer_norm


class MLMHead(nnx.Module):
    """Linear layer, GELU, LayerNorm, then the word table as the decoder, with a bias.

    The table is an argument of the call. A second reference to it in this module would become a second leaf, which would
    silently no longer be tied to the first.
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dense = Linear(rngs.params(), (config.width,), (config.width,), config.init_std)
        self.norm = LayerNorm(config.width)
        self.bias = nnx.Param(jnp.zeros((config.padded_vocab,), jnp.float32))

    def __call__(self, hidden: jax.Array, table: jax.Array, compute: Compute) -> jax.Array:
        """Return float32 logits [..., Vp] for hidden [..., D] and table [Vp, D]; the vocabulary's padding rows get -1e9."""
        return decode(self.transform(hidden, compute), table, self.bias[...], self.config.vocab_size, compute)

    def transform(self, hidden: jax.Array, compute: Compute) -> jax.Array:
        """Return what the decoder reads: [..., D] → [..., D]."""
        return layer_norm(gelu(dense(hidden, self.dense, compute.of_heads())), self.norm, self.config.norm_eps)


class ExtensionHead(nnx.Module):
    """The decoder for the extension's tokens: their own table, with a bias (Tai et al. 2020)."""

    def __init__(self, extension: ExtensionConfig) -> None:
        self.extension = extension
        self.bias = nnx.Param(jnp.zeros((extension.padded_tokens,), jnp.float32))

    def __call__(self, transformed: jax.Array, table: jax.Array, compute: Compute) -> jax.Array:
        """Return float32 logits [..., Vxp] for `MLMHead.transform`'s [..., D] and table [Vxp, D]; padding rows get -1e9."""
        return decode(transformed, table, self.bias[...], self.extension.tokens, compute)


class SentencePairHead(nnx.Module):
    """Two classes from BERT's pooler: 0 if the segments follow each other, 1 if they do not (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.out = Linear(rngs.params(), (config.width,), (2,), config.init_std)

    def __call__(self, first_BD: jax.Array, pooler: Linear) -> jax.Array:
        """Return float32 logits [B, 2] from the vectors of [CLS]. The head is small, so it is always computed in float32."""
        compute = Compute()
        return dense(jnp.tanh(dense(first_BD.astype(jnp.float32), pooler, compute)), self.out, compute)


def decode(x: jax.Array, table_RD: jax.Array, bias_R: jax.Array, tokens: int, compute: Compute) -> jax.Array:
    """Return float32 logits [..., R] for x [..., D]; rows from `tokens` on are padding and get -1e9."""
    bias_R = jnp.where(jnp.arange(len(bias_R)) < tokens, bias_R, jnp.float32(-1e9))
    if compute.operands != compute.activations:
        rows: jax.Array = low_precision_matmul(x.reshape(-1, x.shape[-1]), table_RD, compute.operands, 1)
        return add_wide_bias(rows.reshape(*x.shape[:-1], len(table_RD)), bias_R)
    if x.dtype == jnp.bfloat16:
        rows = bfloat16_logits(x.reshape(-1, x.shape[-1]), table_RD.astype(x.dtype), bias_R)
        return rows.reshape(*x.shape[:-1], len(table_RD))
    return add_wide_bias(jax.lax.dot_general(x, table_RD, (((x.ndim - 1,), (1,)), ((), ()))), bias_R)
