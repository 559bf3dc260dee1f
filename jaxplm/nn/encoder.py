"""The encoder of BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019), optionally with exBERT's extension beside it.

Shapes: B rows, L tokens per row, D width, N blocks, Vp rows of the word table.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import Segments, segments_of
from jaxplm.nn.blocks import Blocks
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.dropout import dropout
from jaxplm.nn.exbert.modules import Extension, GatedBlocks
from jaxplm.nn.layers import PRODUCT, Compute, LayerNorm, layer_norm

# What is kept of each block for the backward pass, by `Compute.remat`; the rest is recomputed (Chen et al. 2016). "dots" keeps
# the products with kernels, which are most of the work, and recomputes what is cheap and wide: softmax, GELU, LayerNorm.
REMAT = {
    "blocks": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
}


def _without_pads(input_ids: jax.Array, position_ids: jax.Array, pad_id: int) -> jax.Array:
    """Return positions that do not count the pad tokens of each segment; those have -1, which with the offset is their id.

    A text may spell the pad token out. RoBERTa's positions follow from the tokens: it is not counted, though attended to.
    """
    is_pad = (input_ids == pad_id).astype(position_ids.dtype)
    before = jnp.cumsum(is_pad, axis=1) - is_pad  # in the row
    place = jax.lax.broadcasted_iota(position_ids.dtype, position_ids.shape, 1)
    first = place - position_ids  # where the segment of each token starts
    before_segment = jnp.take_along_axis(before, first, axis=1)
    return jnp.where(is_pad == 1, -1, position_ids - (before - before_segment))


class Embeddings(nnx.Module):
    """Sum of word, position and token-type embeddings, with LayerNorm and dropout."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config

        def table(rows: int) -> nnx.Param[jax.Array]:
            return nnx.Param(config.init_std * jax.random.normal(rngs.params(), (rows, config.width), jnp.float32))

        self.word = table(config.padded_vocab)
        self.position = table(config.max_positions + config.position_offset)
        if config.token_types:
            self.token_type = table(config.token_types)
        self.norm = LayerNorm(config.width)

    def __call__(self, words_BLD: jax.Array, position_ids: jax.Array, token_types: jax.Array | None,
                 key: jax.Array | None, compute: Compute) -> jax.Array:
        """Return the embeddings of rows, [B, L, D].

        Args:
          words_BLD: the rows of the word table for the tokens.
          position_ids: [B, L] int32, from 0.
          token_types: [B, L] int32, or None for all zeros.
          key: dropout's; None turns dropout off.
          compute: with the type of the result.
        """
        x_BLD = words_BLD + self.position[...][position_ids + self.config.position_offset]
        if self.config.token_types:
            table = self.token_type[...]
            x_BLD = x_BLD + (table[0][None, None] if token_types is None else table[token_types])
        x_BLD = layer_norm(x_BLD, self.norm, self.config.norm_eps).astype(compute.activations)
        return dropout(x_BLD, self.config.dropout, key)


class Encoder(nnx.Module):
    """Embeddings and N blocks: tokens [B, L] → hidden states [B, L, D]."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embeddings = Embeddings(config, rngs)
        self.blocks = Blocks(config, rngs)
        if config.extension:
            self.extension = Extension(config, rngs)

    def __call__(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                 token_types: jax.Array | None = None, *, key: jax.Array | None = None,
                 compute: Compute = Compute(), max_segments_per_row: int = 0) -> jax.Array:
        """Return the hidden states of the last block, [B, L, D] in `compute.activations`.

        Args:
          input_ids: [B, L] int32.
          segment_ids: [B, L] int32, 0 for padding; tokens attend within their own segment.
          position_ids: [B, L] int32, places in the segments, from 0; the family's rule and offset are applied here.
          token_types: [B, L] int32, or None for all zeros.
          key: dropout's; None turns dropout off. It is split by block, so no two blocks share a mask.
          compute: how the arithmetic is done.
          max_segments_per_row: upper bound of the texts per row that the data guarantee; 0 if none is known.
        """
        return self._run(input_ids, segment_ids, position_ids, token_types, key, compute, max_segments_per_row, every=False)[0]

    def every_layer(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array,
                    token_types: jax.Array | None = None, *, key: jax.Array | None = None,
                    compute: Compute = Compute(), max_segments_per_row: int = 0) -> jax.Array:
        """Return the embeddings and the hidden states of all N blocks, [N + 1, B, L, D]; arguments as in a call."""
        _, (first, rest) = self._run(input_ids, segment_ids, position_ids, token_types, key, compute, max_segments_per_row, every=True)
        assert rest is not None
        return jnp.concatenate([first[None], rest])

    def embed(self, input_ids: jax.Array, position_ids: jax.Array, token_types: jax.Array | None = None,
              key: jax.Array | None = None, compute: Compute = Compute()) -> jax.Array:
        """Return the input of the first block, [B, L, D]; arguments as in a call."""
        table = self.embeddings.word[...]
        words_BLD = self.extension.rows(table, input_ids) if self.config.extension else table[input_ids]
        if self.config.pads_take_no_position:
            position_ids = _without_pads(input_ids, position_ids, self.config.pad_id)
        return self.embeddings(words_BLD, position_ids, token_types, key, compute)

    def _run(self, input_ids, segment_ids, position_ids, token_types, key, compute, max_segments_per_row: int, *,
             every: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
        """Return the last hidden states [B, L, D]; and the embeddings [B, L, D] with those of all blocks [N, B, L, D] if `every`."""
        n = self.config.layers
        keys = None if key is None else jax.random.split(key, n + 1)
        first_BLD = self.embed(input_ids, position_ids, token_types, None if keys is None else keys[n], compute)
        segments = segments_of(segment_ids, compute, self.config.head_widths, max_segments_per_row)
        first_BLD = segments.checked(first_BLD)
        graph, stacked = nnx.split(GatedBlocks(self.blocks, self.extension.blocks) if self.config.extension else self.blocks)

        def block(x_BLD: jax.Array, params: nnx.State, key: jax.Array | None, segments: Segments) -> jax.Array:
            return nnx.merge(graph, params)(x_BLD, segments, key, compute)

        if compute.remat != "none":
            block = jax.checkpoint(block, policy=REMAT[compute.remat])

        def one_block(x_BLD: jax.Array, layer: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, jax.Array | None]:
            params, key = layer
            y_BLD = block(x_BLD, params, key, segments)
            return y_BLD, y_BLD if every else None

        last_BLD, rest = jax.lax.scan(one_block, first_BLD, (stacked, None if keys is None else keys[:n]),
                                      unroll=n if compute.unroll else 1)
        return last_BLD, (first_BLD, rest)
