r"""DAPT: adapt an encoder to unlabelled text of a domain.

    jaxplm --config=dapt

Further pre-training by masked language modelling (Gururangan et al. 2020,
arXiv:2004.10964). With no field it trains builtin:tiny, a small BERT, on the
documentation of the Python packages that are installed. Expect a validation
loss that falls from about 6.4 to 4.2, in one to three minutes on two CPU cores.

The paper's settings for RoBERTa-base, 12,500 steps of 2,048 rows:

    jaxplm --config=dapt --workdir=runs/mine \
        --config.model.path=roberta-base --config.data.train='corpus/*.txt' \
        --config.data.seq_len=512 --config.train.steps=12500 \
        --config.train.batch_size=2048 --config.train.accumulate=64 \
        --config.train.learning_rate=5e-4

Smaller batches need a smaller learning rate: 1e-4 at 256 rows per step. The
adapted model is in runs/mine/export, its scores before and after in
runs/mine/report.md.

Against forgetting, a tenth of the rows from general text, whose loss is then
measured on the part that is not replayed:

    --config.data.general=general.txt --config.data.replay=0.1

Shares of several sources: --config.data.train='papers/*.txt,notes.txt'
--config.data.weights='(0.7, 0.3)'
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
