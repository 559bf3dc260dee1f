"""Fields of the recipes of masked language modelling, and the rules between them. Imports no JAX."""

from jaxplm.config import Config
from jaxplm.data.sources.specs import items_of
from jaxplm.errors import UserError
from jaxplm.recipes.training_checks import TRAINING_FIELDS, check_training
from jaxplm.recipes.unread_fields import refuse

EXTENDING = ("extend_vocab", "exbert")  # recipes that add tokens to a checkpoint

_MLM = (*TRAINING_FIELDS, "data.general", "data.weights", "data.replay", "data.packing", "data.mask_rate",
        "data.mask_rate_end", "data.whole_word", "data.short_len", "data.short_share", "data.eval_rows",
        "compute.logit_parts")
_NEW_TOKENS = ("vocab.new_tokens", "vocab.terms", "vocab.min_texts", "vocab.init", "vocab.new_rows_first", "vocab.mask_new")

# Recipe → patterns of the fields that it reads.
FIELDS = {
    "dapt": (*_MLM, "model.pairs"),
    "tapt": (*_MLM, "model.pairs"),
    "scratch": (*_MLM, "model.pairs", "model.size", "model.max_positions", "model.tokenizer", "vocab.size", "vocab.kind",
                "vocab.language", "vocab.cased"),
    "extend_vocab": (*_MLM, *_NEW_TOKENS),
    "exbert": (*_MLM, "model.extension", *_NEW_TOKENS),
}


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together."""
    model, data, train = config.model, config.data, config.train
    refuse(config, "train.seeds", "train.metric", "train.reinit_layers", "task.kind", "model.random")
    if config.recipe in EXTENDING:
        refuse(config, "model.pairs")
        if not model.path:
            raise UserError(f"model.path is empty: {config.recipe} adds tokens to a checkpoint (configs/scratch.py makes a new vocabulary)")
    else:
        refuse(config, "vocab.mask_new", "vocab.new_rows_first")
    if data.short_len and not 8 <= data.short_len < data.seq_len:
        raise UserError(f"data.short_len={data.short_len}: must be 0 (all rows have data.seq_len tokens), or at least 8 and less than"
                        f" data.seq_len={data.seq_len}")
    if model.pairs and data.packing == "stream":
        raise UserError(f"model.pairs={model.pairs!r} makes rows of one pair each: data.packing='stream' joins texts;"
                        " use data.packing=documents")
    if config.recipe == "scratch" and not model.path and data.seq_len > model.max_positions:
        raise UserError(f"data.seq_len={data.seq_len}: the new model has only model.max_positions={model.max_positions} positions")
    check_training(config)
    _check_mixture(config)
    if train.batch_size % train.accumulate:
        raise UserError(f"train.batch_size={train.batch_size} does not divide by train.accumulate={train.accumulate}")


def _check_mixture(config: Config) -> None:
    """Raise a `UserError` where `data.weights` or `data.replay` does not go together with other fields."""
    data = config.data
    if data.weights and len(items := items_of(data.train)) != len(data.weights):
        raise UserError(f"data.weights={data.weights}: {len(data.weights)} weights for the {len(items)} comma-separated"
                        f" entries of data.train={data.train!r}: give one weight per entry")
    if data.weights and data.max_rows and (config.recipe in EXTENDING or not config.model.path):
        raise UserError(f"data.max_rows={data.max_rows} with data.weights: {config.recipe} takes its vocabulary from"
                        " all of data.train, and not from the first texts of each entry; leave data.max_rows out")
    if data.replay is not None and not data.general:
        raise UserError(f"data.replay={data.replay:g} draws rows from data.general, which is empty: give general text,"
                        " or leave data.replay out")
