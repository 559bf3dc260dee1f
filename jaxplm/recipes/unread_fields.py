"""Fields that a recipe does not read although its user expects an effect: they are refused."""

from jaxplm.config import Config
from jaxplm.errors import UserError

_TASKS = "downstream tasks (configs/finetune.py, configs/feature_extraction.py)"
_SCHEDULES = "pre-training, as a schedule over its steps (configs/dapt.py, tapt.py, scratch.py, extend_vocab.py, exbert.py)"
_PRETRAINING = "pre-training (configs/dapt.py, tapt.py, scratch.py, extend_vocab.py, exbert.py)"
_NEW_TOKENS = "recipes that add tokens (configs/extend_vocab.py, configs/exbert.py)"

# Field → what it is for. A field is off where its value is empty, zero, False or None.
PURPOSES = {
    "train.seeds": _TASKS, "train.metric": _TASKS, "train.reinit_layers": _TASKS, "task.kind": _TASKS,
    "model.random": _TASKS,
    "data.mask_rate_end": _SCHEDULES, "data.short_len": _SCHEDULES,
    "vocab.mask_new": _NEW_TOKENS, "vocab.new_rows_first": _NEW_TOKENS,
    "model.pairs": "masked language modelling (configs/dapt.py, tapt.py, scratch.py, evaluate.py)",
    "data.general": "masked language modelling",
    "data.weights": _PRETRAINING, "data.replay": _PRETRAINING,
}


def refuse(config: Config, *names: str) -> None:
    """Raise a `UserError` for the first of the fields, keys of `PURPOSES`, that is set: the recipe of the config does not read it."""
    for name in names:
        section, _, leaf = name.partition(".")
        if value := getattr(getattr(config, section), leaf):
            raise UserError(f"{name}={value!r} is for {PURPOSES[name]}: {config.recipe} does not read it"
                            + ("; use seed=... here" if name == "train.seeds" else "; leave it out"))
