"""Compute the vectors of encoded texts by one compiled function."""

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxplm import nn
from jaxplm.config import Embed
from jaxplm.data.batch import EncoderBatch
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.task_batches import FixedBatches, FixedRows
from jaxplm.data.labelled.unit_rows import default_max_units, encoder_batch
from jaxplm.devices import sharding
from jaxplm.engine.predict import scatter_to_units
from jaxplm.engine.step import make_eval_step
from jaxplm.engine.sweep import sweep
from jaxplm.errors import UserError
from jaxplm.nn.paths import path_name
from jaxplm.nn.pooling import pool
from jaxplm.recipes.embed.model import EmbeddingModel


class BlockBatches(FixedBatches):
    """The units of a block, each once, in batches whose shapes are the same for all blocks.

    Args:
      encoded: the block.
      rows: B, over all processes.
      length: L.
      pad_id: id of the padding token.
      mesh: of the run.

    Attributes:
      lengths: [n] tokens of each unit.
      real_tokens: their sum.
      places: tokens that are computed, padding included.
    """

    def __init__(self, encoded: Encoded, rows: int, length: int, pad_id: int, mesh: jax.sharding.Mesh) -> None:
        placed = FixedRows(encoded.lengths, rows, length, local_rows=lambda rows: sharding.local_rows(rows, mesh),
                           max_segments=default_max_units(length))
        super().__init__(placed, partial(encoder_batch, encoded, pad_id))
        self.lengths = encoded.lengths
        self.real_tokens = placed.real_tokens
        self.places = len(self) * rows * length


class TextEncoder:
    """Computes the vectors of units; compiled once.

    Where `embed.layers` names several layers, a token's vector is their weighted mean, and pooling comes after it, as
    in sentence-transformers' WeightedLayerPooling.

    Args:
      model: the encoder.
      settings: pooling, normalisation and dtype.
      mesh: of the run.
      compute: how the encoder is computed.
      rows, length: B and L of every batch.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        settings: Embed,
        mesh: jax.sharding.Mesh,
        compute: nn.Compute,
        *,
        rows: int,
        length: int,
    ) -> None:
        self.by_token = settings.pooling == "none"
        self.dtype = np.dtype(settings.dtype)
        self.rows, self.length, self._mesh, self._pad_id = rows, length, mesh, model.config.pad_id
        graph, abstract = nn.abstract_model(model.config)
        shares = model.shares

        def measure(module: nn.MaskedLM, batch: EncoderBatch, *, key: None, compute: nn.Compute) -> jax.Array:
            tokens = _mixed(module, batch, shares, compute)  # [B, L, D] float32
            vectors = tokens if self.by_token else pool(tokens, batch.segment_ids, batch.first, settings.pooling)
            if settings.normalize:
                squares = jnp.square(vectors).sum(-1, keepdims=True)
                vectors = vectors / jnp.maximum(jnp.sqrt(squares), 1e-12)
            return vectors.astype(settings.dtype)

        self._step = make_eval_step(graph, measure, abstract, mesh, compute=compute)
        placed = jax.tree.map(sharding.place, model.params, sharding.param_shardings(abstract, mesh))
        self._params = _with_cast_kernels(placed, compute.operands)

    def batches(self, encoded: Encoded) -> BlockBatches:
        """Return the batches of a block. It may be called in another thread."""
        return BlockBatches(encoded, self.rows, self.length, self._pad_id, self._mesh)

    def __call__(self, batches: BlockBatches, between: Callable[[int], None] = lambda units: None) -> np.ndarray:
        """Return the vectors in the order of the units: [n, D], or [T, D] of the tokens where there is no pooling.

        Args:
          batches: of `self.batches`.
          between: called after each batch with the number of its units; it may raise.

        Raises:
          UserError: float16 cannot hold a value, or the model gives numbers that are not finite.
        """
        values: np.ndarray | None = None
        results = cast(
            "Generator[np.ndarray, None, None]", sweep(self._step, self._params, batches, self.rows, self._mesh)
        )
        with closing(results):  # so that no thread is left where `between` raises
            for index, result in enumerate(results):
                if values is None:
                    n = int(batches.lengths.sum()) if self.by_token else len(batches.lengths)
                    values = np.zeros((n, result.shape[-1]), self.dtype)
                units = batches.units_of(index)
                scatter_to_units(values, result, units, batches.lengths, by_token=self.by_token)
                between(int((units >= 0).sum()))
        assert values is not None, "a block has at least one unit"
        if not np.isfinite(values).all():
            hint = "use float32" if self.dtype == np.float16 else "the checkpoint is damaged"
            raise UserError(f"embed.dtype={self.dtype}: vectors of this model are not all finite; {hint}")
        return values


def _mixed(module: nn.MaskedLM, batch: EncoderBatch, shares: np.ndarray, compute: nn.Compute) -> jax.Array:
    """Return the layers' hidden states [B, L, D] float32, weighted by `shares` [N + 1]."""
    max_segments = batch.first.shape[1]
    wanted = np.flatnonzero(shares).tolist()
    places = (batch.input_ids, batch.segment_ids, batch.position_ids)
    if wanted == [len(shares) - 1]:
        return module.encoder(*places, compute=compute, max_segments_per_row=max_segments).astype(jnp.float32)
    if wanted == [0]:
        return module.encoder.embed(batch.input_ids, batch.position_ids, compute=compute).astype(jnp.float32)
    every = module.encoder.every_layer(*places, compute=compute, max_segments_per_row=max_segments)  # [N + 1, B, L, D]
    total = every[wanted[0]].astype(jnp.float32) * shares[wanted[0]]
    for i in wanted[1:]:
        total = total + every[i].astype(jnp.float32) * shares[i]
    return total


def _with_cast_kernels(params: nn.ParamTree, operands: str) -> nn.ParamTree:
    """Cast kernels to the type of the products' factors, once and not in every batch; the numbers are the same."""
    if operands == "float32":
        return params
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(operands) if path_name(path).endswith("/kernel") else leaf, params)
