"""From a comparison's config to its stages."""

from pathlib import Path

import pytest
from messages import refuses

from jaxplm import main
from jaxplm.config import Adapt, Config, Data, Model, Task, Train
from jaxplm.recipes.adapt.overrides import parsed
from jaxplm.recipes.adapt.plan import WAYS, command_of, command_text, make_plan, read_plan, write_plan

HERE = Path("runs/which")


def comparison(**adapt) -> Config:
    return Config(recipe="adapt", model=Model(path="some/model"), task=Task(kind="classify"), train=Train(seeds=(4, 5)),
                  data=Data(corpus="corpus.txt", train="train.csv", validation="dev.csv", test="test.csv", general="general.txt"),
                  adapt=Adapt(**{"learning_rates": (1e-4,), "off_domain": "novels.txt"} | adapt))


def plan_of(**adapt):
    config = comparison(**adapt)
    main.resolve(config, set())
    return make_plan(config, HERE)


def test_the_paper_s_ways_share_their_stages():
    plan = plan_of(ways=("base", "dapt", "tapt", "dapt+tapt"))
    assert [(stage.name, stage.recipe, stage.after) for stage in plan.stages] == [
        ("finetune/base/final", "finetune", ()),
        ("dapt", "dapt", ()), ("finetune/dapt/final", "finetune", ("dapt",)),
        ("tapt", "tapt", ()), ("finetune/tapt/final", "finetune", ("tapt",)),
        ("dapt+tapt", "tapt", ("dapt",)), ("finetune/dapt+tapt/final", "finetune", ("dapt+tapt",))]
    assert plan["dapt"].fields["data.train"] == "corpus.txt" and plan["dapt"].fields["model.path"] == "some/model"
    assert plan["tapt"].fields["data.train"] == plan["dapt+tapt"].fields["data.train"] == "runs/which/task/texts.jsonl"
    assert plan["dapt+tapt"].fields["model.path"] == "runs/which/stages/dapt/export"
    assert plan["finetune/dapt+tapt/final"].fields["model.path"] == "runs/which/stages/dapt+tapt/export"


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("knn-tapt", "dapt+replay")])
def test_every_way_reads_the_task_in_the_same_manner(way):
    plan = plan_of(ways=(way,))
    [row] = plan.rows
    assert (row.way, row.prepared, row.final) == (way, WAYS[way], f"finetune/{way}/final")
    fields = dict(plan[row.final].fields)
    assert fields.pop("model.random", False) == (way == "random")
    assert fields.pop("model.path") == (f"runs/which/stages/{WAYS[way][-1]}/export" if WAYS[way] else "some/model")
    assert fields == {"data.train": "train.csv", "data.validation": "dev.csv", "data.test": "test.csv", "task.kind": "classify",
                      "train.seeds": (4, 5), "train.learning_rate": 1e-4}


def test_preparation_never_reads_the_labelled_sets():
    plan = plan_of(ways=tuple(way for way in WAYS if way not in ("knn-tapt", "dapt+replay")))
    for stage in plan.stages:
        if stage.recipe != "finetune":
            assert not {"train.csv", "dev.csv", "test.csv"}.intersection(map(str, stage.fields.values())), stage.name


def test_new_tokens_come_before_the_training_on_the_domain():
    plan = plan_of(ways=("extend_vocab+dapt",), dapt=("train.steps=70",), extend_vocab=("vocab.new_tokens=9",))
    first, second = plan["extend_vocab"], plan["extend_vocab+dapt"]
    assert (first.fields["train.steps"], first.fields["vocab.new_tokens"]) == (0, 9)
    assert second.fields["train.steps"] == 70 and second.fields["model.path"] == "runs/which/stages/extend_vocab/export"


def test_rates_are_tried_on_the_first_seed_without_the_test_set():
    plan = plan_of(ways=("dapt",), learning_rates=(1e-4, 3e-5))
    [row] = plan.rows
    assert row.trials == ("finetune/dapt/lr=0.0001", "finetune/dapt/lr=3e-05")
    for name, rate in zip(row.trials, (1e-4, 3e-5), strict=True):
        trial = plan[name]
        assert trial.fields["train.learning_rate"] == rate and trial.fields["seed"] == 4 and trial.after == ("dapt",)
        assert "data.test" not in trial.fields and "train.seeds" not in trial.fields
    final = plan[row.final]
    assert final.chooses == row.trials and "train.learning_rate" not in final.fields and final.fields["data.test"] == "test.csv"
    assert "--config.train.learning_rate=3e-05" in command_of(final, HERE, 3e-5)


def test_few_rows_have_the_rate_seeds_and_test_set_of_all_rows():
    plan = plan_of(ways=("base",), learning_rates=(1e-4, 3e-5), few_rows=(500, 100), finetune=("train.epochs=3",), few=("train.steps=7",))
    [row] = plan.rows
    assert row.few == ((100, "finetune/base/rows=100"), (500, "finetune/base/rows=500"))
    whole = plan[row.final]
    for rows, name in row.few:
        few = plan[name]
        assert few.chooses == whole.chooses
        changed = {key: value for key, value in few.fields.items() if whole.fields.get(key) != value}
        assert changed == {"data.max_rows": rows, "data.rows_chosen": "spread", "train.steps": 7}
        assert "train.epochs" not in few.fields, "given steps take the place of epochs"


def test_each_method_has_its_rates_and_fields():
    plan = plan_of(ways=("base",), methods=("finetune", "feature_extraction"), head_learning_rates=(1e-3, 1e-2),
                   feature_extraction=("task.layers=last4",))
    assert [row.final for row in plan.rows] == ["finetune/base/final", "feature_extraction/base/final"]
    assert plan["feature_extraction/base/lr=0.01"].fields["task.layers"] == "last4"
    assert "task.layers" not in plan["finetune/base/final"].fields


def test_held_out_rows_are_the_same_in_every_stage():
    config = comparison(ways=("base",), methods=("finetune", "feature_extraction"))
    config.data.validation, config.data.held_out = "", 0.05
    plan = make_plan(config, HERE)
    assert {stage.fields["data.held_out"] for stage in plan.stages} == {0.05}


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = plan_of(ways=("random", "dapt+tapt"), learning_rates=(1e-4, 3e-5), few_rows=(100,))
    write_plan(plan, tmp_path)
    assert read_plan(tmp_path) == plan


def test_the_dependents_of_a_stage_are_all_that_need_it():
    plan = plan_of(ways=("base", "dapt+tapt"), learning_rates=(1e-4, 3e-5))
    assert list(plan.dependents("dapt")) == ["dapt+tapt", "finetune/dapt+tapt/lr=0.0001", "finetune/dapt+tapt/lr=3e-05",
                                             "finetune/dapt+tapt/final"]


def test_a_command_can_be_typed():
    plan = plan_of(ways=("random",))
    assert command_text(command_of(plan["finetune/random/final"], HERE)) == (
        "jaxplm --config=finetune --workdir=runs/which/stages/finetune/random/final --config.model.path=some/model"
        " --config.model.random=true --config.data.train=train.csv --config.data.validation=dev.csv --config.task.kind=classify"
        " --config.data.test=test.csv '--config.train.seeds=(4, 5)' --config.train.learning_rate=0.0001")


def test_overrides_have_the_types_of_their_fields():
    assert parsed(("train.steps=10", "data.whole_word=true", "train.epochs=2", "data.train=a=b", "train.freeze=('encoder',)")) == {
        "data.whole_word": True, "train.epochs": 2, "data.train": "a=b", "train.freeze": ("encoder",)}


@pytest.mark.parametrize(("changes", "parts"), [
    ({"ways": ("base", "dpat")}, ("adapt.ways", "'dpat'", "dapt")),
    ({"ways": ()}, ("adapt.ways",)),
    ({"ways": ("base", "base")}, ("adapt.ways",)),
    ({"methods": ("finetuning",)}, ("adapt.methods", "finetune")),
    ({"off_domain": "", "ways": ("off-domain-dapt",)}, ("adapt.off_domain", "off-domain-dapt")),
    ({"learning_rates": ()}, ("adapt.learning_rates",)),
    ({"learning_rates": (1e-4, 1e-4)}, ("adapt.learning_rates",)),
    ({"few_rows": (10, 10)}, ("adapt.few_rows",)),
    ({"dapt": ("train.step=3",)}, ("adapt.dapt", "train.step", "train.steps")),
    ({"dapt": ("train.steps",)}, ("adapt.dapt", "train.steps=1000")),
    ({"dapt": ("train.steps=many",)}, ("adapt.dapt", "train.steps", "'many'")),
    ({"dapt": ("model.path=x",)}, ("adapt.dapt", "model.path")),
    ({"dapt": ("task.pooling=mean",)}, ("adapt.dapt", "task.pooling", "dapt does not read")),
    ({"finetune": ("train.learning_rate=1e-3",)}, ("adapt.finetune", "adapt.learning_rates")),
    ({"extend_vocab": ("train.steps=5",)}, ("adapt.extend_vocab", "train.steps", "adapt.dapt")),
    ({"dapt": ("train.batch_size=5", "train.accumulate=2"), "ways": ("dapt",)}, ("stage dapt", "train.batch_size=5", "train.accumulate=2")),
    ({"profile": "slurm"}, ("adapt.profile", "adapt.engine=snakemake")),
])
def test_mistakes_are_answered_before_anything_runs(changes, parts):
    with refuses(*parts):
        main.resolve(comparison(**changes), set())


@pytest.mark.parametrize(("section", "field", "value", "parts"), [
    ("data", "train", "", ("data.train",)),
    ("data", "corpus", "", ("data.corpus", "dapt", "adapt.ways")),
    ("model", "path", "", ("model.path",)),
    ("task", "kind", "clasify", ("task.kind='clasify'", "classify")),
    ("train", "metric", "f2", ("train.metric='f2'", "macro_f1")),
    ("train", "seeds", (1, 1), ("train.seeds",)),
])
def test_the_comparison_needs_its_data(section, field, value, parts):
    config = comparison()
    setattr(getattr(config, section), field, value)
    with refuses(*parts):
        main.resolve(config, set())
