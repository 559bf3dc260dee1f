"""DAPT: further pre-training on a domain corpus with masked language modelling (Gururangan et al. 2020).

    python -m jaxplm.main --config=configs/dapt.py

needs nothing else: a small built-in BERT on the documentation of Python and its scientific packages. For your own:

    python -m jaxplm.main --config=configs/dapt.py --workdir=runs/mine \
        --config.model.path=roberta-base --config.data.train='corpus/*.txt' --config.data.seq_len=512 \
        --config.train.batch_size=2048 --config.train.accumulate=16 --config.train.learning_rate=5e-4 \
        --config.train.steps=12500

which are the paper's settings; with smaller batches take a smaller learning rate (1e-4 at 256 rows).
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train


def get_config() -> Config:
    return Config(
        recipe="dapt",
        model=Model(path="builtin:tiny"),
        data=Data(train="builtin:pydocs", seq_len=128, eval_rows=250),
        train=Train(steps=300, batch_size=16, learning_rate=5e-4, eval_every=100),
        checkpoint=Checkpoint(every=100),
    )
