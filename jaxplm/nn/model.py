"""The whole model of further pre-training, and the way between a module and a plain pytree of its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import without_flash
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.encoder import Encoder
from jaxplm.nn.heads import ExtensionHead, MLMHead, SentencePairHead, decode
from jaxplm.nn.layers import Compute, Linear

ParamTree = dict[str, Any]  # nested dicts; leaves are arrays


class MaskedLM(nnx.Module):
    """An encoder with the masked-language-model head; a pooler is carried along if the checkpoint has one."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs | None = None) -> None:
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.config = config
        self.encoder = Encoder(config, rngs)
        self.mlm_head = MLMHead(config, rngs)
        if config.extension:
            self.mlm_extension = ExtensionHead(config.extension)
        if config.pooler:
            self.pooler = Linear(rngs.params(), (config.width,), (config.width,), config.init_std)
        if config.pair_head:
            self.pair_head = SentencePairHead(config, rngs)

    def masked_states(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                      positions: jax.Array, *, key: jax.Array | None = None,
                      compute: Compute = Compute(), max_segments_per_row: int = 0) -> jax.Array:
        """The encoder's output at `positions` [B, K] only: [B, K, D], which is all that the head is given."""
        hidden = self.encoder(input_ids, segment_ids, position_ids, key=key, compute=compute, max_segments_per_row=max_segments_per_row)
        return jnp.take_along_axis(hidden, positions[..., None], axis=1)

    def masked_states_and_pair_logits(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                                      token_types: jax.Array, positions: jax.Array, *, key: jax.Array | None = None,
                                      compute: Compute = Compute()) -> tuple[jax.Array, jax.Array]:
        """Of rows that hold one pair each, [CLS] A [SEP] B [SEP]: what `masked_states` gives, and the pair's logits,
        float32 [B, 2]. The config has `pooler` and `pair_head`."""
        hidden = self.encoder(input_ids, segment_ids, position_ids, token_types, key=key, compute=compute, max_segments_per_row=1)
        return jnp.take_along_axis(hidden, positions[..., None], axis=1), self.pair_head(hidden[:, 0], self.pooler)

    def hidden_states(self, input_ids: Any, attention_mask: Any = None, compute: Compute = Compute()) -> jax.Array:
        """Last hidden states [B, L, D] of one text a row, padded at the end. attention_mask [B, L]: 1 real, 0 padding."""
        ids = jnp.asarray(input_ids, jnp.int32)
        mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
        return self.encoder(ids, mask, places, compute=without_flash(compute))  # a user's mask may have holes

    def mlm_logits(self, input_ids: Any, attention_mask: Any = None, compute: Compute = Compute()) -> jax.Array:
        """Logits of every position, [B, L, V] float32: for looking at predictions, not for training."""
        hidden = self.hidden_states(input_ids, attention_mask, compute)
        return self.decoded(hidden, compute)[..., : self.config.total_vocab]

    def decoded(self, hidden: jax.Array, compute: Compute) -> jax.Array:
        """[..., D] → float32 logits by token id; what stands past the vocabulary is padding."""
        table = self.encoder.embeddings.word[...]
        if not self.config.extension:
            return self.mlm_head(hidden, table, compute)
        # Two products and not one with both tables: a frozen one needs no gradient.
        x = self.mlm_head.transform(hidden, compute)
        base = decode(x, table, self.mlm_head.bias[...], self.config.vocab_size, compute)
        new = self.mlm_extension(x, self.encoder.extension.word[...], compute)
        return jnp.concatenate([base[..., : self.config.vocab_size], new], axis=-1)


def params_of(module: nnx.Module) -> ParamTree:
    """The module's parameters as nested plain dicts of arrays (the layout that checkpoints and rules speak of)."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def abstract_model(config: EncoderConfig) -> tuple[nnx.GraphDef, ParamTree]:
    """The structure of a `MaskedLM` and its parameters as `jax.ShapeDtypeStruct`s; nothing is allocated."""
    abstract = nnx.eval_shape(lambda: MaskedLM(config))
    graph, state = nnx.split(abstract)
    return graph, nnx.to_pure_dict(state)


def merge_params(graph: nnx.GraphDef, params: ParamTree) -> MaskedLM:
    """The module of `graph` over `params`: cheap, and meant to be called inside a jitted function."""
    return nnx.merge(graph, params)


def random_params(config: EncoderConfig, seed: int) -> ParamTree:
    """Freshly initialised parameters: N(0, init_std²) kernels and tables, unit LayerNorm, zero biases; pad rows zero.

    Positions start as sinusoids of the same variance (Vaswani et al. 2017): neighbours start alike, so attention to
    "the token before" is learned for all positions at once and not for each by itself. They are trained like the rest.
    """
    # One compiled function: drawn leaf by leaf, every shape would be compiled by itself.
    params = jax.jit(lambda: params_of(MaskedLM(config, nnx.Rngs(seed))))()
    tables = params["encoder"]["embeddings"]
    tables["word"] = tables["word"].at[config.vocab_size :].set(0)
    if config.extension:
        own = params["encoder"]["extension"]
        own["word"] = own["word"].at[config.extension.tokens :].set(0)
    tables["position"] = config.init_std * jnp.sqrt(2.0) * sinusoids(*tables["position"].shape)
    return params


def sinusoids(rows: int, width: int) -> jax.Array:
    """[rows, width] float32: sines in the first half, cosines in the second, wavelengths from 2π to 10,000 · 2π."""
    half = (width + 1) // 2
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(rows, dtype=jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)[:, :width]
