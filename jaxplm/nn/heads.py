"""What stands on the encoder: the masked-language-model head, and the one of sentence pairs."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.config import EncoderConfig, ExtensionConfig
from jaxplm.nn.cpu_kernels import add_wide_bias, low_precision_matmul
from jaxplm.nn.layers import Compute, LayerNorm, Linear, dense, gelu, layer_norm


class MLMHead(nnx.Module):
    """Dense, erf-GELU, LayerNorm, then the word table itself as the decoder, with a bias of its own.

    The table is passed in by the caller: a second reference to it here would become a second leaf and
    untie the two without a word.
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dense = Linear(rngs.params(), (config.width,), (config.width,), config.init_std)
        self.norm = LayerNorm(config.width)
        self.bias = nnx.Param(jnp.zeros((config.padded_vocab,), jnp.float32))

    def __call__(self, hidden: jax.Array, table: jax.Array, compute: Compute) -> jax.Array:
        """hidden [..., D], table [Vp, D] → float32 logits [..., Vp]; the pad rows of the vocabulary get -1e9."""
        return decode(self.transform(hidden, compute), table, self.bias[...], self.config.vocab_size, compute)

    def transform(self, hidden: jax.Array, compute: Compute) -> jax.Array:
        """What the decoder reads: [..., D] → [..., D]."""
        return layer_norm(gelu(dense(hidden, self.dense, compute)), self.norm, self.config.norm_eps)


class ExtensionHead(nnx.Module):
    """The decoder of the extension's tokens: their own table, with a bias of its own (Tai et al. 2020)."""

    def __init__(self, extension: ExtensionConfig) -> None:
        self.extension = extension
        self.bias = nnx.Param(jnp.zeros((extension.padded_tokens,), jnp.float32))

    def __call__(self, transformed: jax.Array, table: jax.Array, compute: Compute) -> jax.Array:
        """transformed [..., D] by `MLMHead.transform`, table [Vxp, D] → float32 logits [..., Vxp]; the pad rows get -1e9."""
        return decode(transformed, table, self.bias[...], self.extension.tokens, compute)


class SentencePairHead(nnx.Module):
    """Two classes from BERT's pooler: 0 the segments follow each other, 1 they do not (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.out = Linear(rngs.params(), (config.width,), (2,), config.init_std)

    def __call__(self, first: jax.Array, pooler: Linear) -> jax.Array:
        """first [B, D], the vectors of [CLS] → float32 logits [B, 2]. In float32 whatever the encoder computes in: it is small."""
        compute = Compute()
        return dense(jnp.tanh(dense(first.astype(jnp.float32), pooler, compute)), self.out, compute)


def decode(x: jax.Array, table: jax.Array, bias: jax.Array, tokens: int, compute: Compute) -> jax.Array:
    """x [..., D], table [R, D], bias [R] → float32 logits [..., R]; rows from `tokens` on are padding and get -1e9."""
    if compute.operands == compute.activations:  # ask for float32 logits straight from the product
        logits = jax.lax.dot_general(x, table.astype(x.dtype), (((x.ndim - 1,), (1,)), ((), ())),
                                     preferred_element_type=jnp.float32)
    else:
        rows: jax.Array = low_precision_matmul(x.reshape(-1, x.shape[-1]), table, compute.operands, 1)
        logits = rows.reshape(*x.shape[:-1], len(table))
    return add_wide_bias(logits, jnp.where(jnp.arange(len(bias)) < tokens, bias, jnp.float32(-1e9)))
