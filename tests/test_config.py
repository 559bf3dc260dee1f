"""Fields, their types and limits, and the recipes in configs/."""

import importlib
import json
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_config
from messages import assert_says, refuses

from jaxplm import main, nn
from jaxplm.config import (
    Config,
    Data,
    Fallback,
    Train,
    check_field,
    choices,
    fallback,
    field_infos,
    fields_matching,
    flatten,
    section_abouts,
)
from jaxplm.engine import optim, workdir
from jaxplm.errors import UserError
from jaxplm.nn import paths
from jaxplm.scores.metric import metric_named
from jaxplm.tasks.kinds import KINDS

ROOT = Path(__file__).parents[1]
INFOS = field_infos()
NUMBERS = {name: info for name, info in INFOS.items() if info.value_type in (int, float)}
CHOICES = [name for name, info in INFOS.items() if info.choices]
RECIPES = sorted((ROOT / "configs").glob("*.py"))


def good(**changes: Any) -> Config:
    """A config that validates; field__name=value changes it."""
    config = Config(data=Data(train="a.txt"), train=Train(steps=10))
    for name, value in changes.items():
        *section, leaf = name.split("__")
        setattr(getattr(config, section[0]) if section else config, leaf, value)
    return config


def accept(config: Config) -> list[str]:
    """Check a config as the command does; no field is given by a flag."""
    return main.resolve(config, set())


def refused(config: Config) -> str:
    with pytest.raises(UserError) as caught:
        accept(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("given", "nearest"), [
    ("trian.steps", "train.steps"), ("train.step", "train.steps"), ("steps", "train.steps"), ("data.sequence_len", "data.seq_len"),
    ("lr.learning_rate", "train.learning_rate"), ("model.pth", "model.path"), ("checkpoint.evry", "checkpoint.every"), ("sead", "seed"),
])
def test_an_unknown_field_names_the_nearest(given, nearest):
    with refuses(given, nearest):
        check_field(given)


def test_an_unknown_field_near_nothing_names_the_sections():
    with refuses("xyzzyq", "checkpoint", "data", "train"):
        check_field("xyzzyq")


def test_every_field_is_known_and_the_defaults_are_good():
    names = [name for name, _ in flatten(Config())]
    assert len(names) == len(set(names)) > 40
    for name in names:
        check_field(name)
    accept(good())
    assert names == list(INFOS)
    assert {name.rpartition(".")[0] for name in names} == section_abouts().keys()


@pytest.mark.parametrize("info", INFOS.values(), ids=lambda info: info.name)
def test_every_field_says_what_it_may_be_and_what_it_means(info):
    info.check(info.default)
    assert info.about and "\n" not in info.about and not info.about.endswith(".")
    assert all(f"{choice}" in info.possible for choice in info.choices)


def test_infos_are_those_of_the_annotations():
    seeds, clip, path, size = INFOS["train.seeds"], INFOS["train.clip"], INFOS["model.path"], INFOS["model.size"]
    assert (seeds.value_type, seeds.element_type, seeds.low, seeds.high) == (tuple, int, 0, 2**31 - 1)
    assert (clip.value_type, clip.low, clip.high, clip.optional, clip.default) == (float, 0, math.inf, False, 1.0)
    assert (path.value_type, path.choices, path.low, path.default) == (str, (), -math.inf, "builtin:tiny")
    assert (size.value_type, size.choices) == (str, choices("model.size")) == (str, ("tiny", "mini", "small", "base", "large"))
    assert INFOS["train.steps"].optional and not INFOS["data.seq_len"].optional


def test_every_number_has_limits():
    """A new number without a range in its annotation would accept any value."""
    assert all(math.isfinite(info.low) for info in NUMBERS.values())


@pytest.mark.parametrize("name", NUMBERS)
def test_impossible_numbers(name):
    low, high = INFOS[name].low, INFOS[name].high
    section = name.replace(".", "__")
    for value in (low - 1, math.nan, math.inf, *([high + 1] if math.isfinite(high) else [])):
        # Whether the type or the limit is named, the field is, in one line.
        assert refused(good(**{section: value})).startswith(f"{name}=")


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    section, allowed = name.replace(".", "__"), choices(name)
    kind = "tag" if name == "task.body" else "classify"
    recipe = {"recipe": "finetune", "task__kind": kind} if name.startswith("task.") else {}
    for value in allowed:
        accept(good(**(recipe | {section: value})))
    near = max(allowed, key=len)
    typed = near[:-1] if len(near) < 4 else near[:-2]
    said = refused(good(**(recipe | {section: typed})))
    assert_says(said, f"{name}='{typed}'", *filter(None, allowed))
    suggested = re.findall(r"[\w./-]+", said)[-1]
    assert suggested in (near, near.rstrip("4"))  # 'las' is as near to last as to last4


@pytest.mark.parametrize(("field", "value", "kind"), [
    ("train__steps", "10", "str"), ("train__steps", 10.0, "float"), ("train__steps", True, "bool"), ("data__seq_len", None, "NoneType"),
    ("train", None, "NoneType"), ("model__dropout", "0.1", "str"), ("data__whole_word", 1, "int"), ("model__path", None, "NoneType"),
    ("train__freeze", "encoder/", "str"), ("train__freeze", (1,), "tuple"), ("data__train", ["a.txt"], "list"),
    ("mesh__data", 1.5, "float"), ("train__seeds", (1, 2.0), "tuple"), ("train__seeds", (1, True), "tuple"),
])
def test_wrong_types_in_a_config_file(field, value, kind):
    said = refused(good(**{field: value}))
    assert_says(said, f"{field.replace('__', '.')}={value!r}", kind)


def test_an_integer_will_do_for_a_fraction():
    accept(good(train__steps=None, train__epochs=3, train__learning_rate=1, train__warmup=10))


@pytest.mark.parametrize(("changes", "said"), [
    ({"train__steps": None}, ("train.steps=None", "train.epochs=None")),
    ({"train__epochs": 2.0}, ("train.steps=10", "train.epochs=2.0")),
    ({"train__accumulate": 5}, ("train.batch_size=32", "train.accumulate=5")),
    ({"mesh__tensor": 0}, ("mesh.tensor=0", "-1", "1")),
    ({"train__freeze": ("encoder/(",)}, ("train.freeze='encoder/('", "regular expression")),
    ({"data__train": ""}, ("data.train", "empty")),
    ({"recipe": "evaluate"}, ("data.validation", "data.test", "data.general")),
])
def test_values_that_do_not_go_together(changes, said):
    assert_says(refused(good(**changes)), *said)


def test_objectives_that_validate():
    accept(good(data__short_len=64, data__seq_len=128, data__mask_rate_end=0.3, model__pairs="sop"))
    accept(good(data__short_len=8, data__seq_len=9))
    accept(good(recipe="scratch", model__path="", model__pairs="nsp", data__whole_word=True))
    accept(good(recipe="evaluate", data__validation="a.txt", model__pairs="nsp"))
    accept(good(recipe="extend_vocab", vocab__mask_new=True, data__short_len=16))
    accept(good(vocab__new_tokens=7, vocab__terms="a.txt"))  # of another recipe, and harmless here


@pytest.mark.parametrize(("config", "said"), [
    (good(data__short_len=128), ("data.short_len=128", "0", "8", "data.seq_len=128")),
    (good(data__short_len=7), ("data.short_len=7", "0", "8")),
    (good(recipe="evaluate", data__test="a.txt", data__mask_rate_end=0.1), ("data.mask_rate_end=0.1", "evaluate")),
    (good(recipe="evaluate", data__test="a.txt", data__short_len=16), ("data.short_len=16", "evaluate")),
    (good(recipe="embed", data__mask_rate_end=0.1), ("data.mask_rate_end=0.1", "embed")),
    (good(recipe="finetune", task__kind="classify", data__short_len=16), ("data.short_len=16", "finetune")),
    (good(model__pairs="nsp", data__packing="stream"), ("model.pairs='nsp'", "data.packing='stream'")),
    (good(recipe="finetune", task__kind="qa", model__pairs="sop"), ("model.pairs='sop'", "masked language modelling", "finetune")),
    (good(recipe="embed", model__pairs="sop"), ("model.pairs='sop'", "masked language modelling", "embed")),
    (good(recipe="exbert", model__pairs="nsp"), ("model.pairs='nsp'", "masked language modelling", "exbert")),
    (good(vocab__mask_new=True), ("vocab.mask_new=True", "tokens")),
    (good(vocab__new_rows_first=9), ("vocab.new_rows_first=9", "tokens")),
])
def test_objectives_that_do_not_go_together(config, said):
    assert_says(refused(config), *said)


@pytest.mark.parametrize(("steps", "epochs", "overridden", "left"), [
    (300, None, set(), (300, None)),
    (500, None, {"train.steps"}, (500, None)),
    (300, 2.0, {"train.epochs"}, (None, 2.0)),  # the recipe has steps, the command gives epochs
    (50, 100.0, {"train.steps", "data.train"}, (50, None)),  # and the other way round
])
def test_one_of_steps_and_epochs_takes_the_recipes_other_away(steps, epochs, overridden, left):
    config = good(train__steps=steps, train__epochs=epochs)
    replaced = main.resolve(config, overridden)
    assert (config.train.steps, config.train.epochs) == left
    assert len(replaced) == ((steps, epochs) != left)
    for line in replaced:
        assert_says(line, "train.steps", "train.epochs", str(steps if left[0] is None else epochs))


def test_both_on_the_command_line_are_too_many():
    with refuses("train.steps", "train.epochs"):
        main.resolve(good(train__epochs=2.0), {"train.steps", "train.epochs"})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_validates(recipe):
    config = runpy.run_path(str(recipe))["get_config"]()
    assert isinstance(config, Config)
    assert config.recipe == recipe.stem
    before = dict(flatten(config))
    assert accept(config) == []
    assert dict(flatten(config)) == before, "nothing of a recipe's file is changed"
    text = recipe.read_text("utf-8")
    assert f"jaxplm --config={recipe.stem}" in text, "it says how it is called"
    for field in re.findall(r"--config\.([\w.]+)=", text):
        check_field(field)


def test_every_recipe_of_the_command_has_a_file():
    assert {path.stem for path in RECIPES} == main.RECIPES.keys()


def reads(recipe: str) -> set[str]:
    """The names of the fields that a recipe says it reads."""
    checks = importlib.import_module(f"jaxplm.recipes.{main.RECIPES[recipe]}.checks")
    for pattern in checks.FIELDS[recipe]:
        assert fields_matching([pattern]), f"{recipe}: {pattern} is no field"
    return {info.name for info in fields_matching(checks.FIELDS[recipe])}


def test_every_field_is_read_by_a_recipe():
    assert set().union(*map(reads, main.RECIPES)) == INFOS.keys() - {"recipe"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_sets_only_fields_that_it_reads(recipe):
    config = runpy.run_path(str(recipe))["get_config"]()
    changed = {name for name, value in flatten(config) if value != INFOS[name].default}
    assert changed <= reads(recipe.stem) | {"recipe"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fallback_for_texts_gives_way_where_every_token_is_labelled(kind):
    config = of_kind(kind, task__pooling=fallback("mean"))
    accept(config)
    assert config.task.pooling == ("cls" if KINDS[kind].per_token else "mean")


def test_a_pooling_that_is_no_fallback_never_gives_way():
    assert_says(refused(of_kind("tag", task__pooling="mean")), "task.pooling='mean'", "tag")


def test_a_fallback_set_gives_way_to_a_test_set_and_no_other_set_does():
    for validation, left in ((fallback("a.txt"), ""), ("a.txt", "a.txt")):
        config = good(recipe="evaluate", data__validation=validation, data__test="b.txt")
        accept(config)
        assert config.data.validation == left
    config = good(recipe="evaluate", data__validation=fallback("a.txt"), data__general="b.txt")
    accept(config)
    assert config.data.validation == "a.txt"


def test_a_fallback_is_written_like_any_text():
    assert isinstance(fallback("mean"), Fallback)
    assert json.dumps(fallback("mean")) == '"mean"' and repr(fallback("mean")) == "'mean'" and fallback("mean") == "mean"


def test_recipes_do_not_share_state():
    load = runpy.run_path(str(RECIPES[0]))["get_config"]
    load().train.steps = 7
    assert load().train.steps != 7
    assert Config().train is not Config().train


def frozen(*patterns: str) -> dict[str, list[bool] | bool]:
    _, params = nn.abstract_model(tiny_config(pooler=True))
    return {path: mask.tolist() for path, mask in paths.named(optim.frozen_layers(params, patterns)).items()}


def test_freeze_patterns_match_from_the_start_of_a_path():
    found = frozen("encoder/")
    assert {path for path, off in found.items() if off} == {path for path in found if path.startswith("encoder/")}
    found = frozen("encoder/embeddings/(word|position)$", ".*/norm/")
    assert {path for path, off in found.items() if off} == {
        "encoder/embeddings/word", "encoder/embeddings/position", *(path for path in found if "/norm/" in path)}
    assert False in frozen("mlm_head").values()


def test_freeze_patterns_reach_single_layers_of_the_stack():
    found = frozen("encoder/embeddings", "encoder/blocks/[01]/")
    for path, off in found.items():
        assert off == ([True, True, False] if path.startswith("encoder/blocks/") else path.startswith("encoder/embeddings/")), path
    assert frozen("encoder/blocks/[0-2]/mlp")["encoder/blocks/mlp/up/kernel"] is True  # all layers: as if the leaf was named


@pytest.mark.parametrize(("patterns", "said"), [
    (("encoder/blocks/3/",), ("train.freeze='encoder/blocks/3/'",)),  # there are three: 0, 1, 2
    (("enconder/",), ("train.freeze='enconder/'", "encoder/blocks", "pooler/kernel")),
    (("encoder/", "embeddings"), ("train.freeze='embeddings'",)),  # not in the middle
    ((".*",), ("train.freeze", "every parameter")),
])
def test_freeze_patterns_that_cannot_be_meant(patterns, said):
    with refuses(*said):
        frozen(*patterns)


def test_the_workdir_compares_every_field_but_how_a_run_is_watched(tmp_path):
    workdir.claim(tmp_path, good(), write=True, corpus="abc")
    workdir.claim(tmp_path, good(train__log_every=3, checkpoint__every=7, checkpoint__keep=5, mesh__fsdp=2), write=True, corpus="abc")
    for name, value in flatten(good()):
        if name in workdir.FREE:
            continue
        other = {int: 97, float: 0.5, bool: value is False, str: "other", tuple: ("other",), type(None): 1}[type(value)]
        with refuses(name, "→", "--workdir"):
            workdir.claim(tmp_path, good(**{name.replace(".", "__"): other}), write=True, corpus="abc")
    with refuses("a.txt", "changed"):
        workdir.claim(tmp_path, good(), write=True, corpus="abd")
    assert not list(tmp_path.glob("*.partial"))


def task(**changes: Any) -> Config:
    """A fine-tuning config that validates."""
    return good(**({"recipe": "finetune", "task__kind": "classify"} | changes))


def of_kind(kind: str, **changes: Any) -> Config:
    return good(recipe="feature_extraction", task__kind=kind, **changes)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_tasks_that_validate(kind):
    for config in (of_kind(kind.name), *(of_kind(kind.name, train__metric=metric) for metric in kind.metric_names)):
        accept(config)
    assert kind.metric_names[0] != "loss" and kind.metric_names[-1] == "loss"
    assert all(metric_named(name).better(1.0, 0.0) != metric_named(name).better(0.0, 1.0) for name in kind.metric_names)


def test_the_recipes_of_tasks():
    accept(task(train__batch_size=9, train__accumulate=2))  # units share rows: it need not divide
    accept(of_kind("tag", task__body="lstm", task__layers="mix", task__class_weights="balanced", task__label_smoothing=0.1))
    accept(of_kind("multilabel", task__pooling="max", task__class_weights="balanced"))
    accept(task(train__seeds=(3, 1, 2), train__reinit_layers=2, train__unfreeze_every=10))
    accept(good(recipe="evaluate", data__validation="a.jsonl", task__kind="qa"))
    for path, kind in (("finetune", "classify"), ("feature_extraction", "classify")):
        assert runpy.run_path(str(ROOT / "configs" / f"{path}.py"))["get_config"]().task.kind == kind


@pytest.mark.parametrize(("config", "said"), [
    (task(task__kind=""), ("task.kind", "classify", "multilabel", "regress", "tag", "qa")),
    (task(task__kind="clasify"), ("task.kind='clasify'", "classify")),
    (task(model__path=""), ("model.path", "empty", "encoder")),
    (of_kind("regress", train__metric="macro_f1"), ("train.metric='macro_f1'", "task.kind=regress", "spearman", "pearson", "mse", "loss")),
    (of_kind("qa", train__metric="accuracy"), ("train.metric='accuracy'", "task.kind=qa", "f1", "exact_match", "loss")),
    (task(task__body="lstm"), ("task.body='lstm'", "task.kind=classify")),
    (of_kind("qa", task__body="transformer"), ("task.body='transformer'", "task.kind=qa")),
    (of_kind("tag", task__pooling="mean"), ("task.pooling='mean'", "task.kind=tag")),
    (of_kind("qa", task__pooling="max"), ("task.pooling='max'", "task.kind=qa")),
    (of_kind("regress", task__class_weights="balanced"), ("task.class_weights='balanced'", "task.kind=regress", "classes")),
    (of_kind("qa", task__class_weights="balanced"), ("task.class_weights='balanced'", "task.kind=qa", "classes")),
    (of_kind("multilabel", task__label_smoothing=0.1), ("task.label_smoothing=0.1", "multilabel")),
    (task(train__seeds=(1, 1)), ("train.seeds=(1, 1)", "different")),
    (task(train__seeds=(1, -1)), ("train.seeds=(1, -1)", "0")),
    (task(train__seeds=(1, 2**31)), ("train.seeds=(1, 2147483648)",)),
    (good(train__seeds=(1, 2)), ("train.seeds=(1, 2)", "downstream tasks", "seed=")),
    (good(train__metric="loss"), ("train.metric='loss'", "downstream tasks")),
    (good(task__kind="tag"), ("task.kind='tag'", "downstream tasks")),
    (good(train__reinit_layers=1), ("train.reinit_layers=1", "downstream tasks")),
    (task(data__general="b.txt"), ("data.general='b.txt'", "masked language modelling")),
    (task(train__steps=None), ("train.steps", "train.epochs")),
    (task(data__train=""), ("data.train", "empty")),
])
def test_task_fields_that_do_not_go_together(config, said):
    assert_says(refused(config), *said)
