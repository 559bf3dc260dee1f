r"""Evaluate: MLM loss on fixed masks, or scores and predictions on a task.

    jaxplm --config=evaluate --config.model.path=runs/dapt/export \
        --config.data.validation=domain.txt --config.data.general=general.txt

prints loss, perplexity and accuracy of a masked language model in its domain
and on general text. Masks are the same in every run, so models can be compared.
With no field, builtin:tiny is evaluated on builtin:pydocs, which
data.validation or data.test replaces.

    jaxplm --config=evaluate --config.model.path=runs/finetune/export \
        --config.data.test=rows.jsonl

writes the predictions of a fine-tuned model to predictions.jsonl, and its
scores where the rows have labels.
"""

from jaxplm.config import Config, Data, Model, fallback


def get_config() -> Config:
    return Config(
        recipe="evaluate",
        model=Model(path="builtin:tiny"),
        data=Data(validation=fallback("builtin:pydocs"), seq_len=128, eval_rows=1000),
    )
