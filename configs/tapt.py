"""TAPT: further pre-training on a task's own unlabelled training texts (Gururangan et al. 2020).

    python -m jaxplm.main --config=configs/tapt.py --config.data.train=task/train.jsonl --config.data.test=task/test.jsonl

The paper trains for 100 epochs, a batch being 256 texts of one a row, learning rate 1e-4. Here short texts share rows
without seeing each other, none is lost, and a batch of 32 rows of 128 tokens holds about as many texts; the number of
steps follows from the size of the set. Masks are drawn anew in every epoch. Only the training texts are used: a file
that is also given as data.test is refused. DAPT then TAPT: --config.model.path=runs/dapt/export.

With no override, 200 short docstrings stand in for a task.
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Train


def get_config() -> Config:
    return Config(
        recipe="tapt",
        model=Model(path="builtin:tiny"),
        data=Data(train="builtin:pydocs-short", seq_len=128, eval_rows=300),
        train=Train(epochs=100.0, batch_size=32, learning_rate=1e-4, eval_every=100),
        checkpoint=Checkpoint(every=200),
    )
