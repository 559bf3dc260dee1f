"""Load an encoder for embeddings: cut down to the blocks that its vectors need, with the weight of each layer."""

import dataclasses
import hashlib
import logging
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxplm import hf, nn
from jaxplm.config import Embed
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")


@dataclass(frozen=True)
class EmbeddingModel:
    """An encoder for embeddings; its parameters are NumPy float32 arrays.

    Attributes:
      config, params: of a `MaskedLM` without the blocks above the last one that is needed.
      tokenizer: the checkpoint's.
      hf_config: the checkpoint's config.json.
      shares: [N + 1] float32, the weight of the embeddings and of each remaining block; they sum to 1.
      blocks: how many blocks the checkpoint has.
    """

    config: nn.EncoderConfig
    params: nn.ParamTree
    tokenizer: Any
    hf_config: dict[str, Any]
    shares: np.ndarray
    blocks: int

    @property
    def is_plain(self) -> bool:
        """Whether the vectors are the output of the last remaining block, as a stock model gives it."""
        return len(self.shares) > 1 and bool(self.shares[-1] == 1) and not self.config.extension

    def fingerprint(self) -> str:
        """Return a hash of the weights and the tokenizer."""
        digest = hashlib.blake2b(self.tokenizer.backend_tokenizer.to_str().encode(), digest_size=16)
        for leaf in jax.tree.leaves(self.params["encoder"]):
            digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
        return digest.hexdigest()


def load_embedding_model(path: str, settings: Embed, prefix: str = "embed.") -> EmbeddingModel:
    """Load the encoder of any checkpoint that `hf.load` takes, whatever head it has.

    Args:
      path: as `model.path`.
      settings: say which layers are needed.
      prefix: stands before the names `layers` and `mix` in messages.

    Raises:
      UserError: as `hf.load`; `embed.layers` or `embed.mix` name layers that the model does not have.
    """
    loaded = hf.load(path)
    hf.log_notes(note for note in loaded.notes if "MLM head" not in note)  # no head is needed
    blocks = loaded.config.layers
    shares = layer_shares(settings, blocks, prefix)
    top = max(1, int(np.flatnonzero(shares)[-1]))
    params = dict(loaded.params)
    params["encoder"] = nn.map_blocks(lambda leaf: leaf[:top], params["encoder"])
    config = dataclasses.replace(loaded.config, layers=top)
    return EmbeddingModel(config, params, loaded.tokenizer, loaded.hf_config, shares[: top + 1], blocks)


def layer_shares(settings: Embed, blocks: int, prefix: str = "embed.") -> np.ndarray:
    """Return [N + 1] float32: the weight of the embeddings and of each of N blocks by `layers` or `mix`.

    Raises:
      UserError: no such layer, or another number of weights than N + 1.
    """
    shares = np.zeros(blocks + 1, np.float64)
    if settings.mix:
        if len(settings.mix) != blocks + 1:
            raise UserError(
                f"{prefix}mix has {len(settings.mix)} weights; this model needs {blocks + 1}, for the embeddings and its"
                f" {blocks} layers"
            )
        shares[:] = settings.mix
    elif settings.layers == "mean":
        shares[:] = 1
    elif settings.layers in ("last", "last4"):
        shares[1:][-4 if settings.layers == "last4" else -1:] = 1
    else:
        number = int(settings.layers)
        if not -blocks - 1 <= number <= blocks:
            raise UserError(
                f"{prefix}layers={number}: this model has the layers 0 (embeddings) to {blocks}; -1 is its last"
            )
        shares[number] = 1
    return (shares / shares.sum()).astype(np.float32)
