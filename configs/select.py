r"""Selection: pick the texts of a corpus that are nearest to a task.

    jaxplm --config=select

writes runs/select/selected/texts.jsonl: for each text of the task its nearest
texts in the corpus (kNN-TAPT, Gururangan et al. 2020), each once, with its
number in the corpus, its source, its similarity and the task's row. With no
field, docstrings of the installed Python packages are selected for the task
builtin:pydocs-labels. For data of your own:

    jaxplm --config=select --workdir=runs/nearest \
        --config.model.path=runs/dapt/export \
        --config.data.corpus='corpus/*.txt' --config.data.lines=true \
        --config.data.train=train.jsonl --config.data.validation=dev.jsonl \
        --config.data.test=test.jsonl --config.task.kind=classify \
        --config.data.seq_len=128 \
        --config.select.neighbours=50

Then further pre-training reads them beside the task's own texts:

    jaxplm --config=tapt --workdir=runs/knn-tapt \
        --config.data.train=train.jsonl,runs/nearest/selected/texts.jsonl

Texts that share eight words in a row (select.leak_ngram) with the validation
or test set are left out and counted. select.method=dsir needs no model: it
weighs texts by hashed n-grams (Xie et al. 2023). select.method=random takes
as many texts by chance (select.texts).
"""

from jaxplm.config import Config, Data, Embed, Model, Select, Task, Train


def get_config() -> Config:
    return Config(
        recipe="select",
        model=Model(path="builtin:tiny"),
        data=Data(corpus="builtin:pydocs", train="builtin:pydocs-labels", seq_len=64),
        task=Task(kind="classify"),
        select=Select(method="knn", neighbours=5),
        embed=Embed(pooling="mean", layers="last", shard_rows=8192),  # a stopped run resumes after the last shard
        train=Train(batch_size=32),  # rows of tokens per batch
    )
