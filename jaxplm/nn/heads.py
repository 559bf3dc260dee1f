"""What stands on the encoder: the pooler and the masked-language-model head."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.layers import Affine, Compute, Norm, add_wide_bias, dense, gelu, layer_norm, product


class MLMHead(nnx.Module):
    """Dense, erf-GELU, LayerNorm, then the word table itself as the decoder, with a bias of its own.

    The table is passed in by the caller: a second reference to it here would become a second leaf and
    untie the two without a word.
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dense = Affine(rngs.params(), (config.width,), (config.width,), config.init_std)
        self.norm = Norm(config.width)
        self.bias = nnx.Param(jnp.zeros((config.padded_vocab,), jnp.float32))

    def __call__(self, hidden: jax.Array, table: jax.Array, compute: Compute) -> jax.Array:
        """hidden [..., D], table [Vp, D] → float32 logits [..., Vp]; the pad rows of the vocabulary get -1e9."""
        x = layer_norm(gelu(dense(hidden, self.dense, compute)), self.norm, self.config.norm_eps)
        if compute.operands == compute.activations:  # ask for float32 logits straight from the product
            logits = jax.lax.dot_general(x, table.astype(x.dtype), (((x.ndim - 1,), (1,)), ((), ())),
                                         preferred_element_type=jnp.float32)
        else:
            logits = product(x, table.T, compute)
        real = jnp.arange(self.config.padded_vocab) < self.config.vocab_size
        bias = jnp.where(real, self.bias[...], jnp.float32(-1e9))
        return add_wide_bias(logits, bias)
