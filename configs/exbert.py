"""exBERT: many new words beside a base that stays as it is (Tai et al. 2020, Findings of EMNLP).

    python -m jaxplm.main --config=configs/exbert.py

The new tokens get a table and a decoder of their own, and every block of the base a narrower one beside it, mixed in by a
learned gate. At the start the gates are nearly closed, so the model computes what the base computes. An optax mask freezes
the base: not a bit of it changes. --config.train.freeze='()' trains everything.
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
