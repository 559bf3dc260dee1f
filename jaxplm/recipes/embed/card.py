"""The model card of an encoder that embeddings were made with."""

from jaxplm.config import Config
from jaxplm.recipes.embed.layers import Source


def card(config: Config, source: Source, command: str) -> str:
    """The text of `export/README.md`."""
    settings = config.embed
    used = source.config.layers
    layer = "the last layer" if used == source.blocks else f"layer {used} of {source.blocks} (those above it are left out)"
    pooled = {"cls": "the vector of the first token", "mean": "the mean over all tokens", "max": "the maximum over all tokens"}
    what = f"{pooled[settings.pooling]} of {layer}" + (", divided by its length" if settings.normalize else "")
    return f"""---
library_name: sentence-transformers
pipeline_tag: feature-extraction
tags:
  - jaxplm
  - sentence-transformers
---

# Embeddings by {config.model.path}

The encoder with which jaxplm made embeddings: {what}, {source.config.width} numbers a text. Texts of more than
{config.data.seq_len} tokens are cut. Its weights are those of `{config.model.path}`, whose terms apply.

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("path/to/this/directory").encode(["a text", "another one"])
```

`jaxplm.embed(texts, "path/to/this/directory", pooling="{settings.pooling}", normalize={settings.normalize})` gives the same.

Made with

```
{command}
```
"""
