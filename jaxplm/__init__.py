"""jaxplm adapts pre-trained BERT and RoBERTa encoders to a domain. The command is `python -m jaxplm.main`."""

from typing import TYPE_CHECKING

from jaxplm.version import VERSION as __version__

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from jaxplm.nn import MaskedLM

__all__ = ["__version__", "load"]


def load(path: str) -> "tuple[MaskedLM, PreTrainedTokenizerFast]":
    """A model and its tokenizer, from a run's export, any directory in transformers' format, a hub id or builtin:tiny.

    >>> model, tokenizer = jaxplm.load("builtin:tiny")
    >>> batch = tokenizer(["The [MASK] sat by the fire."], return_tensors="np")
    >>> logits = model.mlm_logits(batch["input_ids"], batch["attention_mask"])  # [B, L, V] float32

    Raises:
      jaxplm.errors.UserError: nothing there, a pickle, an unsupported architecture, weights that do not fit.
    """
    # Imported here: `import jaxplm` alone should not wait for JAX.
    import jax
    import jax.numpy as jnp

    from jaxplm import hf, nn

    loaded = hf.load(path)
    graph, _ = nn.graph_of(loaded.config)
    return nn.module_with(graph, jax.tree.map(jnp.asarray, loaded.params)), loaded.tokenizer
