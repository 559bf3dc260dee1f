"""Fields of the comparison, and the rules between them. Imports no JAX."""

from collections.abc import Iterable
from pathlib import Path

from jaxplm.config import Config
from jaxplm.errors import UserError, did_you_mean
from jaxplm.recipes.adapt.overrides import parse
from jaxplm.recipes.adapt.plan import METHODS, WAYS, make_plan
from jaxplm.recipes.adapt.stage_config import fields_read, stage_config

# The comparison starts other commands, and computes nothing on a device itself: a GPU is theirs.
STARTS_JAX = False

# Recipe → patterns of the fields that it reads.
FIELDS = {"adapt": (
    "seed", "model.path", "model.dropout", "model.attention_dropout",
    "data.corpus", "data.train", "data.validation", "data.test", "data.general", "data.replay", "data.lines", "data.text",
    "data.text_pair", "data.label", "data.label_names", "data.tokens", "data.tags", "data.token_unit", "data.tag_scheme", "data.seq_len",
    "data.held_out", "task.*", "train.seeds", "train.metric", "adapt.*", "mesh.*", "compute.*",
)}

# Overrides by the recipe that they are for, and fields that the comparison gives itself.
_OVERRIDES = {"dapt": "dapt", "tapt": "tapt", "select": "select", "extend_vocab": "extend_vocab", "exbert": "exbert",
              "finetune": "finetune", "feature_extraction": "feature_extraction", "few": "finetune"}
_GIVEN = {
    "seed": "seed or train.seeds", "train.seeds": "train.seeds", "model.path": "model.path", "model.random": "adapt.ways",
    "data.train": "data.train, data.corpus or adapt.off_domain", "data.validation": "data.validation", "data.test": "data.test",
    "data.held_out": "data.held_out", "data.corpus": "data.corpus", "data.general": "data.general", "data.max_rows": "adapt.few_rows",
    "data.rows_chosen": "adapt.few_rows",
    "data.replay": "data.replay", "train.metric": "train.metric", "task.kind": "task.kind",
}
_RATES = {"finetune": "adapt.learning_rates", "feature_extraction": "adapt.head_learning_rates", "few": "adapt.learning_rates"}


def check(config: Config) -> None:
    """Raise a `UserError` for values that do not go together."""
    adapt, data = config.adapt, config.data
    _check_names("adapt.ways", adapt.ways, WAYS)
    _check_names("adapt.methods", adapt.methods, METHODS)
    if not config.model.path:
        raise UserError("model.path is empty: a comparison needs a pre-trained encoder (configs/scratch.py makes one)")
    if not data.train:
        raise UserError("data.train is empty: give the task's training set: a path, a glob, hf:<name> or builtin:pydocs-labels/train")
    in_domain = {"dapt", "dapt+tapt", "knn-tapt", "dapt+replay", "extend_vocab+dapt", "exbert"}
    for needed, ways, what in ((data.corpus, in_domain, "data.corpus is empty: give unlabelled texts of the domain"),
                               (adapt.off_domain, {"off-domain-dapt"}, "adapt.off_domain is empty: give texts of another domain"),
                               (data.general, {"dapt+replay"}, "data.general is empty: give general text to replay")):
        if not needed and (asking := [way for way in adapt.ways if way in ways]):
            raise UserError(f"{what}, or leave {asking[0]} out of adapt.ways")
    if data.replay is not None and "dapt+replay" not in adapt.ways:
        raise UserError(f"data.replay={data.replay:g} is for the way dapt+replay, which is not in adapt.ways; leave it out")
    for name, rates in (("adapt.learning_rates", adapt.learning_rates), ("adapt.head_learning_rates", adapt.head_learning_rates)):
        if not rates or len(set(rates)) != len(rates) or not all(0 < rate <= 10 for rate in rates):
            raise UserError(f"{name}={rates}: must be different numbers above 0, at most 10")
    if len(set(adapt.few_rows)) != len(adapt.few_rows):
        raise UserError(f"adapt.few_rows={adapt.few_rows}: must be different numbers")
    if len(set(config.train.seeds)) != len(config.train.seeds):
        raise UserError(f"train.seeds={config.train.seeds}: must be different numbers")
    if adapt.profile and adapt.engine != "snakemake":
        raise UserError(f"adapt.profile={adapt.profile!r} is for adapt.engine=snakemake; give both, or leave it out")
    _check_overrides(config)
    for stage in make_plan(config, Path("WORKDIR")).stages:
        stage_config(stage.recipe, stage.fields, f"stage {stage.name}")


def _check_names(field: str, given: tuple[str, ...], known: Iterable[str]) -> None:
    known = tuple(known)
    for name in given:
        if name not in known:
            raise UserError(f"{field}={given}: {name!r} must be one of {', '.join(known)}{did_you_mean(name, known)}")
    if not given or len(set(given)) != len(given):
        raise UserError(f"{field}={given}: must be different names out of {', '.join(known)}, at least one")


def _check_overrides(config: Config) -> None:
    for name, recipe in _OVERRIDES.items():
        for override in getattr(config.adapt, name):
            field, _ = parse(override, f"adapt.{name}")
            if field == "train.learning_rate" and name in _RATES:
                raise UserError(f"adapt.{name}: {override!r}: learning rates of the task are given by {_RATES[name]}")
            if field in _GIVEN:
                raise UserError(f"adapt.{name}: {override!r}: stages get {field} from the comparison; it is given by {_GIVEN[field]}")
            if name == "extend_vocab" and field in ("train.steps", "train.epochs"):
                raise UserError(f"adapt.{name}: {override!r}: the stage adds tokens and trains no step; the training after it is that of"
                                " adapt.dapt")
            if recipe != "select" and field not in fields_read(recipe):
                raise UserError(f"adapt.{name}: {override!r}: {recipe} does not read {field}")
