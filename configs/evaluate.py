"""The MLM loss of a model on frozen masks, in its domain and on general text.

    python -m jaxplm.main --config=configs/evaluate.py --config.model.path=runs/dapt/export \
        --config.data.validation=domain.txt --config.data.general=general.txt
"""

from jaxplm.config import Config, Data, Model


def get_config() -> Config:
    return Config(
        recipe="evaluate",
        model=Model(path="builtin:tiny"),
        data=Data(validation="builtin:pydocs", seq_len=128, eval_rows=1000),
    )
