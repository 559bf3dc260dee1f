r"""TAPT: adapt an encoder to the training texts of one task.

    jaxplm --config=tapt --config.data.train=task/train.jsonl \
        --config.data.test=task/test.jsonl

Masked language modelling on the texts without their labels (Gururangan et al.
2020, arXiv:2004.10964): 100 epochs, learning rate 1e-4. The masks differ from
epoch to epoch. Only the training texts are used: a file that is also given as
data.test is refused.

The paper's batch is 256 texts, one per row. Here short texts share rows without
seeing each other, so a batch of 32 rows of 128 tokens holds a similar number,
and the number of steps follows from the size of the set.

TAPT after DAPT starts from DAPT's export: --config.model.path=runs/dapt/export.
With no field, 200 short docstrings stand in for the texts of a task.
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
