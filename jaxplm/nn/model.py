"""The model of pre-training, and the conversion between a module and a plain tree of its parameters.

Shapes: B rows, L tokens per row, K masked positions per row, D width, V vocabulary.
"""

from collections.abc import Callable
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
    """An encoder with the masked-language-model head, and with a pooler and a head for pairs if the config has them."""

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
                      positions_BK: jax.Array, *, key: jax.Array | None = None,
                      compute: Compute = Compute(), max_segments_per_row: int = 0) -> jax.Array:
        """Return the encoder's output at the masked positions only, [B, K, D]. Logits [B, L, V] are never computed.

        `positions_BK` are places in a row; the other arguments are those of `Encoder`.
        """
        hidden_BLD = self.encoder(input_ids, segment_ids, position_ids, key=key, compute=compute,
                                  max_segments_per_row=max_segments_per_row)
        return jnp.take_along_axis(hidden_BLD, positions_BK[..., None], axis=1)

    def masked_states_and_pair_logits(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                                      token_types: jax.Array, positions_BK: jax.Array, *, key: jax.Array | None = None,
                                      compute: Compute = Compute()) -> tuple[jax.Array, jax.Array]:
        """Return `masked_states` [B, K, D] and the logits of the pairs, float32 [B, 2].

        Each row holds one pair, [CLS] A [SEP] B [SEP]. The config must have `pooler` and `pair_head`.
        """
        hidden_BLD = self.encoder(input_ids, segment_ids, position_ids, token_types, key=key, compute=compute, max_segments_per_row=1)
        states_BKD = jnp.take_along_axis(hidden_BLD, positions_BK[..., None], axis=1)
        return states_BKD, self.pair_head(hidden_BLD[:, 0], self.pooler)

    def hidden_states(self, input_ids: Any, attention_mask: Any = None, compute: Compute = Compute()) -> jax.Array:
        """Return the last hidden states [B, L, D] of one text per row, padded at the end.

        attention_mask [B, L] is 1 for tokens and 0 for padding; None means that there is no padding.
        """
        ids = jnp.asarray(input_ids, jnp.int32)
        mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
        places = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
        return self.encoder(ids, mask, places, compute=without_flash(compute))  # a user's mask may have holes

    def mlm_logits(self, input_ids: Any, attention_mask: Any = None, compute: Compute = Compute()) -> jax.Array:
        """Return the logits of every position, [B, L, V] float32: for looking at predictions, not for training."""
        hidden_BLD = self.hidden_states(input_ids, attention_mask, compute)
        return self.decoded(hidden_BLD, compute)[..., : self.config.total_vocab]

    def decoded(self, hidden: jax.Array, compute: Compute) -> jax.Array:
        """Return float32 logits by token id for hidden [..., D]; what comes after the vocabulary is padding."""
        table = self.encoder.embeddings.word[...]
        if not self.config.extension:
            return self.mlm_head(hidden, table, compute)
        # Two products instead of one with both tables, because a frozen table needs no gradient.
        x = self.mlm_head.transform(hidden, compute)
        base = decode(x, table, self.mlm_head.bias[...], self.config.vocab_size, compute)
        new = self.mlm_extension(x, self.encoder.extension.word[...], compute)
        return jnp.concatenate([base[..., : self.config.vocab_size], new], axis=-1)


def params_of(module: nnx.Module) -> ParamTree:
    """Return a module's parameters as nested plain dicts of arrays, the layout of checkpoints and of parameter paths."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def abstract(make: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, ParamTree]:
    """Return the structure of the module that `make` builds, and its parameters as `jax.ShapeDtypeStruct`s; allocate nothing."""
    graph, state = nnx.split(nnx.eval_shape(make))
    return graph, nnx.to_pure_dict(state)


def abstract_model(config: EncoderConfig) -> tuple[nnx.GraphDef, ParamTree]:
    """Return the structure and the abstract parameters of a `MaskedLM`, see `abstract`."""
    return abstract(lambda: MaskedLM(config))


def merge_params(graph: nnx.GraphDef, params: ParamTree) -> Any:
    """Return the module of a structure with these parameters. It is cheap, and meant to be called in a jitted function."""
    return nnx.merge(graph, params)


def random_params(config: EncoderConfig, seed: int) -> ParamTree:
    """Return new parameters: kernels and tables from N(0, init_std²), LayerNorm scales 1, biases 0, padding rows 0.

    Positions start as sinusoids of the same variance (Vaswani et al. 2017), and are trained like the rest. Neighbouring
    positions start alike, so attention to the previous token, for example, is learned for all positions at once.
    """
    # One compiled function: drawn leaf by leaf, every shape would be compiled separately.
    params = jax.jit(lambda: params_of(MaskedLM(config, nnx.Rngs(seed))))()
    tables = params["encoder"]["embeddings"]
    tables["word"] = tables["word"].at[config.vocab_size :].set(0)
    if config.extension:
        own = params["encoder"]["extension"]
        own["word"] = own["word"].at[config.extension.tokens :].set(0)
    tables["position"] = config.init_std * jnp.sqrt(2.0) * sinusoids(*tables["position"].shape)
    return params


def sinusoids(rows: int, width: int) -> jax.Array:
    """Return [rows, width] float32: sines in the first half, cosines in the second, with wavelengths from 2π to 10,000 · 2π."""
    half = (width + 1) // 2
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(rows, dtype=jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)[:, :width]
