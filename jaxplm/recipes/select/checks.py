"""Fields of the recipe that selects texts, and the rules between them. Imports no JAX."""

from jaxplm.config import Config
from jaxplm.errors import UserError
from jaxplm.recipes.embed.checks import check_layers
from jaxplm.recipes.finetune.checks import kind_named
from jaxplm.recipes.unread_fields import refuse

# Recipe → patterns of the fields that it reads.
FIELDS = {"select": (
    "seed", "model.path", "data.corpus", "data.train", "data.validation", "data.test", "data.lines", "data.text", "data.text_pair",
    "data.label", "data.label_names", "data.tokens", "data.tags", "data.token_unit", "data.tag_scheme", "data.seq_len", "data.max_rows",
    "data.held_out", "data.rows_chosen", "task.kind", "select.*", "embed.*", "train.batch_size", "mesh.*",
    "compute.dtype", "compute.unroll", "compute.attention", "compute.kernels", "compute.remat",
)}


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together."""
    refuse(config, "train.seeds", "train.metric", "train.reinit_layers", "data.mask_rate_end", "data.short_len", "data.general",
           "data.weights", "data.replay", "vocab.mask_new", "vocab.new_rows_first", "model.pairs")
    data, select = config.data, config.select
    check_layers(config.embed)
    if not data.corpus:
        raise UserError("data.corpus is empty: give the texts to select from: a path, a glob, a directory, hf:<name> or builtin:pydocs")
    if not data.train:
        raise UserError("data.train is empty: give the texts of the task, for which texts of data.corpus are selected")
    if config.task.kind:
        kind_named(config.task.kind)
    if select.method != "knn":
        return
    if select.texts is not None:
        raise UserError(f"select.texts={select.texts} is for select.method=dsir and random: knn finds select.neighbours for each task text;"
                        " leave it out")
    if not config.model.path:
        raise UserError("model.path is empty: select.method=knn needs an encoder; select.method=dsir needs none")
    if config.embed.pooling == "none":
        raise UserError("embed.pooling='none' gives a vector per token: select.method=knn compares texts; use cls, mean or max")
