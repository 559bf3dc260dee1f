r"""Feature extraction: train a head on a frozen encoder.

    jaxplm --config=feature_extraction

An optax mask freezes the encoder. Its vectors are computed once and kept in the
workdir (task.cache), so an epoch takes moments and many epochs are cheap. The
head reads a learned mix of all layers (task.layers=mix) and the mean over the
tokens of a text (task.pooling=mean), as Peters et al. 2019 advise. With
task.kind=tag or qa, the head reads every token and pools nothing.

With no field, a head on builtin:tiny learns which package a docstring comes
from. Tagging with a BiLSTM on frozen vectors:

    jaxplm --config=feature_extraction --workdir=runs/mine \
        --config.model.path=roberta-base --config.task.kind=tag \
        --config.task.body=lstm --config.data.train=train.conll \
        --config.data.validation=dev.conll
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Task, Train, fallback


def get_config() -> Config:
    labels = "builtin:pydocs-labels"
    return Config(
        recipe="feature_extraction",
        model=Model(path="builtin:tiny"),
        data=Data(train=labels, seq_len=128, held_out=0.1),
        task=Task(kind="classify", pooling=fallback("mean"), layers="mix"),
        train=Train(epochs=30.0, batch_size=32, learning_rate=1e-3, weight_decay=0.01, freeze=("encoder",), eval_every=500, log_every=100),
        checkpoint=Checkpoint(every=1000, keep=1),
    )
