r"""Adapt: compare the ways to adapt an encoder to your domain and task.

    jaxplm --config=adapt

Which way is best for your data? The comparison prepares the encoder in each way
of adapt.ways, by further pre-training on the domain, on the task's texts, on
both, or not at all. It learns the task on each encoder with several seeds, and
writes one table to runs/adapt/report.md. Each stage is an ordinary run in
runs/adapt/stages, and the log prints its command. The same command resumes. A
changed field repeats only the stages that depend on it.

With no field, builtin:tiny, a model of old novels, learns which Python package
a docstring comes from. For a task of your own:

    jaxplm --config=adapt --workdir=runs/which \
        --config.model.path=roberta-base --config.task.kind=classify \
        --config.data.corpus='corpus/*.txt' \
        --config.data.train=train.jsonl --config.data.validation=dev.jsonl \
        --config.data.test=test.jsonl --config.train.metric=macro_f1 \
        --config.adapt.learning_rates='(1e-5,2e-5,5e-5)' \
        --config.adapt.dapt="('train.steps=12500','train.batch_size=256')" \
        --config.adapt.tapt="('train.epochs=100',)" \
        --config.adapt.finetune="('train.epochs=10','train.patience=3')"

--config.adapt.dry_run=true prints the stages and what they will cost.
"""

from jaxplm.config import Adapt, Config, Data, Model, Task, Train


def get_config() -> Config:
    labels = "builtin:pydocs-labels"
    return Config(
        recipe="adapt",
        model=Model(path="builtin:tiny"),
        data=Data(corpus="builtin:pydocs-packages", train=f"{labels}/train", validation=f"{labels}/validation", test=f"{labels}/test",
                  seq_len=48, held_out=0.1),
        task=Task(kind="classify"),
        train=Train(seeds=(1, 2, 3)),
        adapt=Adapt(
            ways=("random", "base", "dapt", "tapt", "dapt+tapt"),
            methods=("finetune",),
            learning_rates=(5e-4,),
            head_learning_rates=(1e-3,),
            few_rows=(100,),
            parallel=2,
            dapt=("train.steps=100", "train.batch_size=32", "train.learning_rate=1e-3"),
            tapt=("train.steps=60", "train.batch_size=32", "train.learning_rate=1e-3"),
            finetune=("train.epochs=1", "train.eval_every=200"),
            few=("train.epochs=10",),
        ),
    )
