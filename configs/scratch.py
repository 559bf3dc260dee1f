"""A tokenizer and an encoder from nothing.

    python -m jaxplm.main --config=configs/scratch.py --config.data.train='corpus/*.txt' --config.model.size=base

trains an uncased WordPiece vocabulary on the corpus and then a BERT with random weights.
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train, Vocab


def get_config() -> Config:
    return Config(
        recipe="scratch",
        model=Model(path="", size="tiny", dropout=0.0, attention_dropout=0.0),
        data=Data(train="builtin:pydocs", seq_len=64, eval_rows=500),
        train=Train(steps=300, batch_size=32, learning_rate=1e-3, warmup=0.06, eval_every=100),
        checkpoint=Checkpoint(every=100),
        vocab=Vocab(size=8192),
    )
