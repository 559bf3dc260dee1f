"""Embeddings: one vector for every row of a corpus, in .npy files that any other model reads.

    python -m jaxplm.main --config=configs/embed.py

needs nothing else: a small built-in BERT and docstrings of the packages that are installed. For your own:

    python -m jaxplm.main --config=configs/embed.py --workdir=runs/vectors --config.model.path=runs/dapt/export \
        --config.data.train='texts/*.jsonl' --config.data.text=body --config.data.seq_len=256 \
        --config.embed.pooling=mean --config.embed.normalize=true --config.embed.dtype=float16

`embed.pooling=none` gives a vector for every token instead; `embed.layers` and `embed.mix` choose the layers.
"""

from jaxplm.config import Config, Data, Embed, Model, Train


def get_config() -> Config:
    return Config(
        recipe="embed",
        model=Model(path="builtin:tiny"),
        data=Data(train="builtin:pydocs-labels", seq_len=128),
        embed=Embed(pooling="mean", layers="last"),
        train=Train(batch_size=32),  # rows of tokens a batch
    )
