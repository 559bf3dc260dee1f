"""The heads of labelled tasks: vectors of units or tokens → logits."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import segments_of, without_flash
from jaxplm.nn.blocks import Blocks
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.dropout import dropout
from jaxplm.nn.head_config import HeadConfig
from jaxplm.nn.layers import Compute, Linear, dense
from jaxplm.nn.recurrent import BiLSTM

_FLOAT32 = Compute()  # of the layers at the end, whatever the encoder computes in: they are small, and logits are float32


class ScalarMix(nnx.Module):
    """γ Σ softmax(w)ₘ xₘ over the layers (Peters et al. 2018, eq. 1); starts as their mean."""

    def __init__(self, layers: int) -> None:
        self.weights = nnx.Param(jnp.zeros((layers,), jnp.float32))
        self.gamma = nnx.Param(jnp.ones((), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Mix the M layers of x [..., M, D]; return [..., D]."""
        shares = jax.nn.softmax(self.weights[...]) * self.gamma[...]
        return jnp.einsum("...md,m->...d", x, shares, precision=jax.lax.Precision.HIGHEST)


class TaskHead(nnx.Module):
    """The head of `HeadConfig`; `dense` and `out` as in transformers where it has the same head.

    A head that pools: dense, tanh, output, with dropout before the output (and for RoBERTa's family before `dense` too;
    BERT calls this layer its pooler). A head that looks at every token: dropout if it has any, body, output.
    """

    def __init__(self, config: EncoderConfig, head: HeadConfig, rngs: nnx.Rngs) -> None:
        self.head = head
        self.rate = config.dropout if head.dropout is None else head.dropout
        self.dropout_first = config.head_dropout_first
        width = config.width
        if head.layers == "mix":
            self.mix = ScalarMix(config.layers + 1)
        if head.body == "lstm":
            self.body = BiLSTM(width, head.body_width, rngs)
            width = 2 * head.body_width
        elif head.body == "transformer":
            self.body = Blocks(dataclasses.replace(config, layers=1, ffn_width=head.body_width, dropout=self.rate), rngs)
        if head.pooled:
            self.dense = Linear(rngs.params(), (width,), (width,), config.init_std)
        self.out = Linear(rngs.params(), (width,), (head.classes,), config.init_std)

    def __call__(self, features: jax.Array, segment_ids: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return float32 logits [..., C] from features [..., M, D] float32 and segment_ids [B, L]."""
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        x = self.mix(features) if self.head.layers == "mix" else features.squeeze(-2)
        if self.head.pooled:
            if self.dropout_first:
                x = dropout(x, self.rate, keys[0])
            x = dropout(jnp.tanh(dense(x, self.dense, _FLOAT32)), self.rate, keys[1])
        elif self.head.token_dropout:
            x = dropout(x, self.rate, keys[0])
        if self.head.body:
            x = dropout(self._through_body(x, segment_ids, keys[1], compute), self.rate, keys[2])
        return dense(x, self.out, _FLOAT32)

    def _through_body(self, x: jax.Array, segment_ids: jax.Array, key: jax.Array | None, compute: Compute) -> jax.Array:
        """Run the body over x [B, L, D]; return [B, L, D] or, from the LSTM, [B, L, 2h]; float32."""
        compute = compute.of_heads()
        if isinstance(self.body, BiLSTM):
            return self.body(x, segment_ids, compute)
        graph, stacked = nnx.split(self.body)
        block: Blocks = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[0], stacked))
        compute = without_flash(compute)  # one block is no place to save in
        segments = segments_of(segment_ids, compute, (self.body.attention.config.head_width,))
        return block(x.astype(compute.activations), segments, key, compute).astype(jnp.float32)
