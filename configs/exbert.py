r"""exBERT: add thousands of words beside a base that stays frozen.

    jaxplm --config=exbert

The new tokens get an embedding table and a decoder of their own, and every
block of the base gets a narrower block beside it, mixed in by a learned gate
(Tai et al. 2020, Findings of EMNLP). At the start the gates are nearly closed,
so the model computes what the base computes. The base is frozen by an optax
mask: none of its parameters change. --config.train.freeze='()' trains all.

With no field it adds 1,000 tokens to builtin:tiny. The export is loaded by
jaxplm.load, because transformers has no such model.

    jaxplm --config=exbert --workdir=runs/exbert \
        --config.model.path=bert-base-uncased \
        --config.data.train='corpus/*.txt' --config.train.steps=20000 \
        --config.vocab.new_tokens=10000
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train, Vocab


def get_config() -> Config:
    return Config(
        recipe="exbert",
        model=Model(path="builtin:tiny", extension=0.33),
        data=Data(train="builtin:pydocs", seq_len=128, whole_word=True, eval_rows=250),
        train=Train(steps=200, batch_size=16, learning_rate=1e-3, eval_every=100,
                    freeze=("(encoder/(embeddings|blocks)|mlm_head|pooler|pair_head)/",)),  # all but the extension
        checkpoint=Checkpoint(every=100),
        vocab=Vocab(new_tokens=1000),
    )
