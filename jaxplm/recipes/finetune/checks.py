"""Fields of the recipes of labelled tasks, and the rules between them. Imports no JAX."""

from jaxplm.config import Config, Fallback
from jaxplm.errors import UserError, did_you_mean
from jaxplm.recipes.training_checks import TRAINING_FIELDS, check_training
from jaxplm.recipes.unread_fields import refuse
from jaxplm.tasks.kinds import KINDS, TaskKind

_TASK = (*TRAINING_FIELDS, "data.label", "data.label_names", "data.tokens", "data.tags", "data.token_unit", "data.tag_scheme", "task.*",
         "train.seeds", "train.metric", "train.reinit_layers", "model.random", "data.rows_chosen")

# Recipe → patterns of the fields that it reads.
FIELDS = {"finetune": _TASK, "feature_extraction": _TASK}


def kind_named(name: str) -> TaskKind:
    """Return the kind of task of a name; raise a `UserError` where there is none."""
    if name not in KINDS:
        raise UserError(f"task.kind={name!r}: must be one of {', '.join(KINDS)}{did_you_mean(name, KINDS)}")
    return KINDS[name]


def check_label_names(names: tuple[str, ...], kind: TaskKind) -> None:
    """Raise a `UserError` for names of classes that stand twice, or where the kind of task has no classes."""
    if names and not kind.named_outputs:
        raise UserError(f"data.label_names={','.join(names)!r}: task.kind={kind.name} has no classes to name; leave it empty")
    if len(set(names)) != len(names) or not all(map(str.strip, names)):
        raise UserError(f"data.label_names={','.join(names)!r}: must be different names, none of them empty")


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together.

    `task.pooling` gives way to the default where the recipe's file has it as a fallback and the kind of task pools nothing.
    """
    task, train = config.task, config.train
    if not task.kind:
        raise UserError(f"task.kind is empty: must be one of {', '.join(KINDS)}")
    kind = kind_named(task.kind)
    if kind.per_token and isinstance(task.pooling, Fallback):
        task.pooling = "cls"
    if not config.model.path:
        raise UserError("model.path is empty: a task needs a pre-trained encoder (configs/scratch.py makes one)")
    kind.check(task, train.metric)
    check_label_names(config.data.label_names, kind)
    if config.model.random and train.reinit_layers:
        raise UserError(f"train.reinit_layers={train.reinit_layers}: with model.random=true all blocks are random; leave one of them out")
    if len(set(train.seeds)) != len(train.seeds):
        raise UserError(f"train.seeds={train.seeds}: must be different numbers")
    refuse(config, "data.general", "data.weights", "data.replay", "data.mask_rate_end", "data.short_len",
           "vocab.mask_new", "vocab.new_rows_first", "model.pairs")
    check_training(config)
