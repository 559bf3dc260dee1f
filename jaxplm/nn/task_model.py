"""An encoder with the head of a task, and the head alone for features that were computed before."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxplm.nn.attention.dispatch import without_flash
from jaxplm.nn.config import EncoderConfig
from jaxplm.nn.encoder import Encoder
from jaxplm.nn.head_config import HeadConfig
from jaxplm.nn.layers import Compute
from jaxplm.nn.model import ParamTree, abstract, params_of
from jaxplm.nn.pooling import pool
from jaxplm.nn.task_heads import TaskHead

LAST = 4  # blocks that layers="last4" averages


class HeadModel(nnx.Module):
    """The head alone: what is trained on the cached features of a frozen encoder. Its parameters have the paths
    that they have in a `TaskModel`: `head/...`."""

    def __init__(self, config: EncoderConfig, head: HeadConfig, labels: tuple[str, ...] = (),
                 rngs: nnx.Rngs | None = None) -> None:
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.config, self.head_config, self.labels = config, head, labels
        self.head = TaskHead(config, head, rngs)

    def logits_from(self, features: jax.Array, segment_ids: jax.Array, *, key: jax.Array | None = None,
                    compute: Compute = Compute()) -> jax.Array:
        """Return float32 logits from `TaskModel.features`: [B, S, C] of a head that pools, else [B, L, C].

        Args:
          features: [B, S, M, D] or [B, L, M, D].
          segment_ids: [B, L] int32; read by the body alone.
          key: dropout's; None turns dropout off.
        """
        return self.head(features.astype(jnp.float32), segment_ids, key, compute)


class TaskModel(HeadModel):
    """An encoder and the head of a task. `labels` are the names of the C outputs, () where they have none."""

    def __init__(self, config: EncoderConfig, head: HeadConfig, labels: tuple[str, ...] = (),
                 rngs: nnx.Rngs | None = None) -> None:
        rngs = nnx.Rngs(0) if rngs is None else rngs
        super().__init__(config, head, labels, rngs)
        self.encoder = Encoder(config, rngs)

    def features(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array, token_types: jax.Array,
                 first: jax.Array, *, key: jax.Array | None = None, compute: Compute = Compute()) -> jax.Array:
        """Return what the head reads, before anything that the head trains; float32.

        Args: as `batch.TaskBatch` holds them; `key` is dropout's, None turns it off.

        Returns:
          [B, S, M, D] of a head that pools (zeros in unused segments), else [B, L, M, D]. M is N + 1 for layers="mix",
          embeddings first, and 1 otherwise. last4 is the mean over the last four blocks (all, if there are
          fewer) of their vectors, each pooled by itself.
        """
        most = first.shape[1]
        types = token_types if self.config.token_types > 1 else None  # a table of one row needs no lookup
        if self.head_config.layers == "last":
            hidden = self.encoder(input_ids, segment_ids, position_ids, types, key=key, compute=compute, max_segments_per_row=most)[None]
        else:
            hidden = self.encoder.every_layer(input_ids, segment_ids, position_ids, types, key=key, compute=compute,
                                              max_segments_per_row=most)
            if self.head_config.layers == "last4":
                hidden = hidden[1:][-LAST:]
        if self.head_config.pooled:
            hidden = jax.vmap(pool, (0, None, None, None))(hidden, segment_ids, first, self.head_config.pooling)
        hidden = hidden.astype(jnp.float32)
        if self.head_config.layers == "last4":
            hidden = hidden.mean(0, keepdims=True)
        return jnp.moveaxis(hidden, 0, 2)

    def __call__(self, input_ids: jax.Array, segment_ids: jax.Array, position_ids: jax.Array, token_types: jax.Array,
                 first: jax.Array, *, key: jax.Array | None = None, compute: Compute = Compute()) -> jax.Array:
        """Return the logits of packed rows; arguments as in `features`, result as in `logits_from`."""
        keys = (None, None) if key is None else jax.random.split(key)
        features = self.features(input_ids, segment_ids, position_ids, token_types, first, key=keys[0], compute=compute)
        return self.logits_from(features, segment_ids, key=keys[1], compute=compute)

    def logits(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None,
               compute: Compute = Compute()) -> jax.Array:
        """Return float32 logits of one text or pair per row, padded at the end: [B, C] of a head that pools, else [B, L, C].

        The arguments are [B, L] and named as a tokenizer of transformers names them.

        >>> model, tokenizer = jaxplm.load("runs/finetune/export")
        >>> scores = model.logits(**tokenizer(["a text", "another one"], padding=True, return_tensors="np"))
        >>> [model.labels[i] for i in scores.argmax(-1)]
        """
        ids = jnp.asarray(input_ids, jnp.int32)
        mask = jnp.ones_like(ids) if attention_mask is None else jnp.asarray(attention_mask, jnp.int32)
        types = jnp.zeros_like(ids) if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
        return _logits_of(*nnx.split(self), ids, mask, types, without_flash(compute))  # a user's mask may have holes


@partial(jax.jit, static_argnums=(0, 5))
def _logits_of(graph: nnx.GraphDef, params: nnx.State, ids: jax.Array, mask: jax.Array, types: jax.Array,
               compute: Compute) -> jax.Array:
    # Compiled, once for every shape: called op by op, the loop over the blocks would be compiled at each call.
    model: TaskModel = nnx.merge(graph, params)
    places = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    logits = model(ids, mask, places, types, jnp.zeros((len(ids), 1), jnp.int32), compute=compute)
    return logits[:, 0] if model.head_config.pooled else logits


def abstract_task_model(config: EncoderConfig, head: HeadConfig, labels: tuple[str, ...] = ()) -> tuple[nnx.GraphDef, ParamTree]:
    """Return the structure of a `TaskModel` and its parameters as `jax.ShapeDtypeStruct`s; nothing is allocated."""
    return abstract(lambda: TaskModel(config, head, labels))


def abstract_head_model(config: EncoderConfig, head: HeadConfig) -> tuple[nnx.GraphDef, ParamTree]:
    """Return the structure and the abstract parameters of a `HeadModel`: {"head": ...}."""
    return abstract(lambda: HeadModel(config, head))


def random_head_params(config: EncoderConfig, head: HeadConfig, seed: int) -> ParamTree:
    """Draw a new head, without the key "head" above it: kernels N(0, init_std²) and zero biases as in BERT.

    See `BiLSTM` and `ScalarMix` for their initialisation.
    """
    return _drawn(config, head, seed)["head"]


@partial(jax.jit, static_argnums=(0, 1))
def _drawn(config: EncoderConfig, head: HeadConfig, seed: Any) -> ParamTree:
    return params_of(HeadModel(config, head, rngs=nnx.Rngs(jax.random.key(seed))))
