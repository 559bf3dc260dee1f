"""What every recipe that trains has in common: the fields that it reads, and rules between them."""

import re

from jaxplm.config import Config
from jaxplm.errors import UserError

# Patterns of the fields that a recipe which trains reads; see `jaxplm.config.fields_matching`.
TRAINING_FIELDS = (
    "seed", "model.path", "model.dropout", "model.attention_dropout",
    "data.train", "data.validation", "data.test", "data.lines", "data.text", "data.text_pair", "data.seq_len", "data.max_rows",
    "data.held_out",
    "train.steps", "train.epochs", "train.batch_size", "train.accumulate", "train.learning_rate", "train.warmup", "train.schedule",
    "train.weight_decay", "train.beta1", "train.beta2", "train.epsilon", "train.clip", "train.layer_decay", "train.freeze",
    "train.unfreeze_every", "train.eval_every", "train.patience", "train.log_every", "train.max_bad_steps",
    "checkpoint.*", "export.*", "mesh.*", "compute.dtype", "compute.unroll", "compute.attention", "compute.kernels", "compute.remat",
)


def check_training(config: Config) -> None:
    """Raise a `UserError` where the length of the run, the frozen parameters or the training set cannot be used."""
    train = config.train
    if (train.steps is None) == (train.epochs is None):
        raise UserError("train.steps and train.epochs: exactly one must be given"
                        f" (now train.steps={train.steps}, train.epochs={train.epochs})")
    for pattern in train.freeze:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"train.freeze={pattern!r}: not a regular expression ({error})") from None
    if not config.data.train:
        raise UserError("data.train is empty: give a path, a glob, a directory, hf:<name> or builtin:pydocs")
