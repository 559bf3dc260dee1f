"""Fields of the recipe that evaluates, and the rules between them. Imports no JAX."""

from jaxplm.config import Config, Fallback
from jaxplm.errors import UserError
from jaxplm.recipes.finetune.checks import kind_named
from jaxplm.recipes.unread_fields import refuse

# Recipe → patterns of the fields that it reads.
FIELDS = {"evaluate": (
    "seed", "model.path", "model.dropout", "model.attention_dropout", "model.pairs",
    "data.validation", "data.test", "data.general", "data.lines", "data.text", "data.text_pair", "data.label", "data.label_names",
    "data.tokens", "data.tags", "data.token_unit", "data.tag_scheme",
    "data.seq_len", "data.packing", "data.mask_rate", "data.whole_word", "data.eval_rows",
    "task.kind", "task.overlap", "task.max_answer", "task.rules", "train.batch_size", "mesh.*", "compute.*",
)}


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together.

    `data.validation` gives way to `data.test` where the recipe's file has it as a fallback.
    """
    data, model = config.data, config.model
    if data.test and isinstance(data.validation, Fallback):
        data.validation = ""
    refuse(config, "train.seeds", "train.metric", "train.reinit_layers", "model.random", "data.mask_rate_end", "data.short_len",
           "data.weights", "data.replay", "vocab.mask_new", "vocab.new_rows_first")
    if config.task.kind:
        kind_named(config.task.kind)
    if model.pairs and data.packing == "stream":
        raise UserError(f"model.pairs={model.pairs!r} makes rows of one pair each: data.packing='stream' joins texts;"
                        " use data.packing=documents")
    if not (data.validation or data.test or data.general):
        raise UserError("nothing to evaluate on: give data.validation, data.test, data.general or several of them")
