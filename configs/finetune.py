r"""Fine-tuning: train the whole model on labelled rows.

    jaxplm --config=finetune

With no field, builtin:tiny learns which package a docstring comes from. For a
task of your own, with the settings of Gururangan et al. 2020 for base-sized
models (arXiv:2004.10964; smaller models need a larger learning rate):

    jaxplm --config=finetune --workdir=runs/mine \
        --config.model.path=runs/dapt/export --config.task.kind=classify \
        --config.data.train=train.jsonl --config.data.validation=dev.jsonl \
        --config.data.test=test.jsonl --config.train.seeds='(1,2,3)' \
        --config.train.metric=macro_f1 --config.train.learning_rate=2e-5 \
        --config.train.epochs=10 --config.train.patience=3

Scores are in runs/mine/report.md, the predictions for the test set in
runs/mine/predictions.jsonl, the model in runs/mine/export.
"""

from jaxplm.config import Checkpoint, Config, Data, Model, Task, Train


def get_config() -> Config:
    labels = "builtin:pydocs-labels"
    return Config(
        recipe="finetune",
        model=Model(path="builtin:tiny"),
        data=Data(train=labels, seq_len=128, held_out=0.1),
        task=Task(kind="classify"),
        train=Train(epochs=3.0, batch_size=16, learning_rate=3e-4, weight_decay=0.1, eval_every=100, log_every=20),
        checkpoint=Checkpoint(every=200, keep=1),
    )
