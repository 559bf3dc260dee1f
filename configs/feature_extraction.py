"""Feature extraction: the encoder stays as it is, and a new head learns the task on its vectors.

    python -m jaxplm.main --config=configs/feature_extraction.py

The encoder is frozen by an optax mask. Since nothing below the head moves, its vectors are computed once and kept in
the workdir (task.cache); an epoch then takes a moment, and many are cheap. The head sees a learned mix of all layers
(task.layers=mix), the mean over a text's tokens (task.pooling=mean), as Peters et al. 2019 advise:

    python -m jaxplm.main --config=configs/feature_extraction.py --workdir=runs/mine --config.model.path=roberta-base \
        --config.task.kind=tag --config.task.body=lstm --config.data.train=train.conll --config.data.validation=dev.conll
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Task, Train


def get_config() -> Config:
    labels = "builtin:pydocs-labels"
    return Config(
        recipe="feature_extraction",
        model=Model(path="builtin:tiny"),
        data=Data(train=labels, seq_len=128, held_out=0.1),
        task=Task(kind="classify", pooling="mean", layers="mix"),
        train=Train(epochs=30.0, batch_size=32, learning_rate=1e-3, weight_decay=0.01, freeze=("encoder",), eval_every=500, log_every=100),
        checkpoint=Checkpoint(every=1000, keep=1),
    )
