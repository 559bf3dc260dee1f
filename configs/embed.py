r"""Embeddings: write a vector for every text of a corpus.

    jaxplm --config=embed

writes .npy files to runs/embed/embeddings, with the vectors in the order of the
texts, and index.json, which describes them. With no field, builtin:tiny embeds
docstrings of the Python packages that are installed. For texts of your own:

    jaxplm --config=embed --workdir=runs/vectors \
        --config.model.path=runs/dapt/export \
        --config.data.train='texts/*.jsonl' --config.data.text=body \
        --config.data.seq_len=256 \
        --config.embed.pooling=mean --config.embed.normalize=true \
        --config.embed.dtype=float16

embed.pooling=none writes a vector for every token. embed.layers and embed.mix
choose the layers.
"""

from jaxplm.config import Config, Data, Embed, Model, Train


def get_config() -> Config:
    return Config(
        recipe="embed",
        model=Model(path="builtin:tiny"),
        data=Data(train="builtin:pydocs-labels", seq_len=128),
        embed=Embed(pooling="mean", layers="last"),
        train=Train(batch_size=32),  # rows of tokens per batch
    )
