"""The stages of a comparison on disk: what runs again after a change, which learning rate is taken, what a failure leaves."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from messages import assert_line, assert_says, refuses
from tokenizers import Tokenizer
from tokenizers.models import Unigram

from jaxplm.config import Adapt, Config, Data, Model, Task, Train
from jaxplm.recipes.adapt import local, recipe, state
from jaxplm.recipes.adapt.collect import Collector
from jaxplm.recipes.adapt.contents import write_contents
from jaxplm.recipes.adapt.kept import remove_what_no_one_reads
from jaxplm.recipes.adapt.plan import Plan, make_plan, read_plan, write_plan
from jaxplm.recipes.adapt.task_texts import read_task

LABELS = ("good", "bad")


def rows(count: int, word: str) -> str:
    return "text,label\n" + "".join(f"{word} number {i},{LABELS[i % 2]}\n" for i in range(count))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, count in (("train", 12), ("dev", 6), ("test", 6)):
        (tmp_path / f"{name}.csv").write_text(rows(count, name))
    (tmp_path / "corpus.txt").write_text("one text\nanother text\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def comparison(here: Path, **adapt) -> Config:
    chosen = {"ways": ("base", "dapt", "dapt+tapt"), "learning_rates": (1e-4,), "dapt": ("train.steps=5",)} | adapt
    return Config(recipe="adapt", model=Model(path=str(here / "model")), task=Task(kind="classify"), train=Train(seeds=(4, 5)),
                  data=Data(corpus=str(here / "corpus.txt"), **{name: str(here / f"{file}.csv") for name, file in (
                      ("train", "train"), ("validation", "dev"), ("test", "test"))}), adapt=Adapt(**chosen))


def prepared(config: Config, workdir: Path) -> Plan:
    plan = make_plan(config, workdir)
    read_task(config, workdir)
    write_contents(plan, workdir)
    write_plan(plan, workdir)
    return plan


def end(plan: Plan, workdir: Path, name: str, **scores) -> None:
    """Write what a stage leaves that has ended."""
    stage = plan[name]
    place = workdir / stage.place
    (place / "export").mkdir(parents=True, exist_ok=True)
    rate = state.chosen_rate(stage, plan, workdir)
    state.write(place / state.ENDED, {"inputs": state.inputs_of(stage, plan, workdir, rate), "seconds": 2.0})
    if scores:
        (place / "export" / "exported.json").write_text(json.dumps({"step": 7, "metric": "macro_f1"}))
        (place / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "split": split} | values) + "\n" for step, split, values in (
            (0, "validation", {"macro_f1": 1.0}), (7, "train", {"loss": 1.0}), (7, "validation", scores))))


def states(config: Config, workdir: Path) -> dict[str, str]:
    plan = prepared(config, workdir)
    found = {}
    for stage in plan.stages:
        try:
            inputs = state.inputs_of(stage, plan, workdir, state.chosen_rate(stage, plan, workdir))
        except KeyError:
            continue
        found[stage.name] = state.look(stage, workdir, inputs).state
    return found


ALL_ENDED = dict.fromkeys(("finetune/base/final", "dapt", "finetune/dapt/final", "dapt+tapt", "finetune/dapt+tapt/final"), "ended")


@pytest.fixture
def ended(here: Path) -> Path:
    """A comparison all of whose stages have ended."""
    workdir = here / "run"
    plan = prepared(comparison(here), workdir)
    for stage in plan.stages:
        end(plan, workdir, stage.name)
    assert states(comparison(here), workdir) == ALL_ENDED
    return workdir


def test_a_changed_field_concerns_its_stage_and_those_after_it(here, ended):
    changed = comparison(here, dapt=("train.steps=6",))
    assert states(changed, ended) == ALL_ENDED | {"dapt": "other"}
    plan = prepared(changed, ended)
    assert state.look(plan["dapt"], ended, state.inputs_of(plan["dapt"], plan, ended)).changes == (("train.steps", 5, 6),)
    end(plan, ended, "dapt")
    assert states(changed, ended) == ALL_ENDED | {"finetune/dapt/final": "other", "dapt+tapt": "other"}


def test_the_log_names_what_runs_again_and_why(here, ended, caplog):
    with caplog.at_level(logging.INFO, "jaxplm"):
        again = recipe._log_changes(prepared(comparison(here, dapt=("train.steps=6",)), ended), ended)
    assert again == {"dapt", "finetune/dapt/final", "dapt+tapt", "finetune/dapt+tapt/final"}  # a dry run's table says so
    assert_line(caplog.text, "dapt", "train.steps 5 → 6", "finetune/dapt/final", "dapt+tapt", "finetune/dapt+tapt/final")
    assert "base" not in caplog.text


def test_how_a_run_is_watched_changes_nothing(here, ended):
    assert states(comparison(here, dapt=("train.steps=5", "train.log_every=3", "checkpoint.every=2")), ended) == ALL_ENDED
    assert states(comparison(here, parallel=4, dry_run=True), ended) == ALL_ENDED


def test_other_texts_are_another_stage_and_a_new_time_is_not(here, ended):
    os.utime(here / "corpus.txt", (1, 1))
    assert states(comparison(here), ended) == ALL_ENDED
    (here / "corpus.txt").write_text("one text\nyet another text\n")
    assert states(comparison(here), ended) == ALL_ENDED | {"dapt": "other"}


def test_other_rows_of_the_task_concern_what_reads_them(here, ended):
    (here / "test.csv").write_text(rows(5, "test"))
    found = states(comparison(here), ended)
    finals = {"finetune/base/final", "finetune/dapt/final", "finetune/dapt+tapt/final"}
    assert {name for name, one in found.items() if one == "other"} == finals


def test_a_comparison_can_be_moved(here, ended):
    ended.rename(here / "moved")
    assert states(comparison(here), here / "moved") == ALL_ENDED


def test_what_was_made_from_something_else_is_kept_and_taken_back(here, ended):
    old = prepared(comparison(here), ended)
    inputs = state.inputs_of(old["dapt"], old, ended)
    place = state.set_aside(old["dapt"], ended)
    assert place and place.is_dir() and not (ended / "stages" / "dapt").exists()
    assert not state.take_back(old["dapt"], ended, inputs | {"train.steps": 6})
    assert state.take_back(old["dapt"], ended, inputs)
    assert states(comparison(here), ended) == ALL_ENDED


RATES = {"learning_rates": (1e-4, 3e-5, 5e-5), "ways": ("base",)}


@pytest.mark.parametrize(("scores", "chosen"), [
    ((0.5, 0.7, 0.6), 3e-5),
    ((0.7, 0.2, 0.7), 5e-5),  # of equal ones the smallest
    ((None, 0.1, None), 3e-5),  # not a number never wins
])
def test_the_rate_of_the_best_validation_score_is_taken(here, scores, chosen):
    workdir = here / "run"
    plan = prepared(comparison(here, **RATES), workdir)
    for name, score in zip(plan.rows[0].trials, scores, strict=True):
        end(plan, workdir, name, macro_f1=score)
    assert state.chosen_rate(plan[plan.rows[0].final], plan, workdir) == chosen


def test_a_rate_that_is_not_chosen_repeats_nothing(here):
    workdir = here / "run"
    plan = prepared(comparison(here, **RATES), workdir)
    for name, score in zip(plan.rows[0].trials, (0.5, 0.7, 0.6), strict=True):
        end(plan, workdir, name, macro_f1=score)
    end(plan, workdir, "finetune/base/final")
    more = comparison(here, **RATES | {"learning_rates": (*RATES["learning_rates"], 1e-3)})
    plan = prepared(more, workdir)
    end(plan, workdir, "finetune/base/lr=0.001", macro_f1=0.1)
    assert set(states(more, workdir).values()) == {"ended"}
    end(plan, workdir, "finetune/base/lr=0.001", macro_f1=0.9)
    assert states(more, workdir)["finetune/base/final"] == "other"


def engine(workdir: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    monkeypatch.setattr(local, "MODULE", "fake_stage")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    local.LocalEngine(read_plan(workdir), workdir, 2, lambda: None).run()


@pytest.mark.slow
def test_a_failed_stage_is_named_and_the_others_run(here, monkeypatch, caplog):
    workdir = here / "run"
    config = comparison(here)
    plan = prepared(config, workdir)
    with caplog.at_level(logging.INFO, "jaxplm"):
        engine(workdir, monkeypatch, FAILING_STAGE="dapt")
    assert set((workdir / "order.txt").read_text().split()) == {"finetune/base/final", "dapt"}
    assert_line(caplog.text, "stage dapt failed", "jaxplm: dapt cannot go on")
    assert_line(caplog.text, "not run", "finetune/dapt/final", "dapt+tapt", "finetune/dapt+tapt/final")
    assert state.read_ended(workdir, plan["finetune/base/final"]) and not state.read_ended(workdir, plan["dapt"])


@pytest.mark.slow
def test_each_stage_runs_once_after_those_that_it_needs(here, monkeypatch):
    workdir = here / "run"
    plan = prepared(comparison(here), workdir)
    end(plan, workdir, "dapt")
    engine(workdir, monkeypatch)
    order = (workdir / "order.txt").read_text().split()
    assert sorted(order) == sorted(name for name in ALL_ENDED if name != "dapt")
    assert order.index("dapt+tapt") < order.index("finetune/dapt+tapt/final")
    assert set(states(comparison(here), workdir).values()) == {"ended"}
    engine(workdir, monkeypatch)
    assert (workdir / "order.txt").read_text().split() == order


def test_a_task_file_in_the_corpus_is_refused(here):
    config = comparison(here)
    (here / "corpus").mkdir()
    (here / "corpus" / "copy.csv").write_text(rows(12, "train"))
    config.data.corpus = str(here / "corpus")
    with refuses("data.train", "train.csv", "data.corpus"):
        read_task(config, here / "run")


def test_rows_in_two_sets_are_counted_and_noted(here, caplog):
    (here / "test.csv").write_text(rows(4, "test") + "Train number 3,bad\n")
    task = read_task(comparison(here), here / "run")
    [note] = task.notes
    assert_says(note, "1", "5", "data.test", "data.train")
    assert note in caplog.text
    assert (task.rows, task.test_rows) == (12, 5)


def test_tapt_reads_the_training_texts_without_those_that_are_held_out(here):
    config = comparison(here)
    config.data.validation = ""
    task = read_task(config, here / "run")
    written = [json.loads(line)["text"] for line in (here / "run" / "task" / "texts.jsonl").read_text().splitlines()]
    assert tuple(written) == task.texts and 0 < len(written) < 12 and all(text.startswith("train number") for text in written)


def test_a_workdir_of_something_else_is_refused(here, ended):
    recipe._claim(comparison(here), here / "new")
    recipe._claim(comparison(here, ways=("base",)), here / "new")  # another setting
    other = comparison(here)
    other.model.path = "another/model"
    with refuses("model.path", "another/model", "another --workdir"):
        recipe._claim(other, here / "new")
    (here / "dapt").mkdir()
    (here / "dapt" / "config.json").write_text(json.dumps({"recipe": "dapt"}))
    with refuses("dapt", "another --workdir"):
        recipe._claim(comparison(here), here / "dapt")
    with refuses("corpus.txt", "another --workdir"):
        recipe._claim(comparison(here), here)


@pytest.mark.parametrize(("cores", "parallel", "shares"), [
    ({0, 1, 2, 3}, 2, ["0,2", "1,3"]),
    ({4, 5, 6}, 2, ["4", "5"]),  # as many each
    ({0, 1}, 1, [""]),  # all of them
    ({0, 1}, 3, ["", "", ""]),  # more stages than cores
])
def test_stages_that_run_at_a_time_have_cores_of_their_own(monkeypatch, cores, parallel, shares):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: cores, raising=False)
    monkeypatch.setattr(local, "GPU", Path("/nowhere"))
    assert local._shares_of_cores(parallel) == shares
    monkeypatch.setattr(local, "GPU", Path("/"))
    assert local._shares_of_cores(parallel) == [""] * parallel  # they compute on a GPU, and need the cores for compiling


@pytest.mark.parametrize(("name", "kept"), [
    ("finetune/base/final", {"export/model.safetensors", "predictions.jsonl", "seed-4/export/exported.json"}),
    ("finetune/base/rows=4", {"predictions.jsonl", "seed-4/export/exported.json"}),
    ("dapt", {"export/model.safetensors", "predictions.jsonl", "seed-4/export/exported.json", "seed-4/export/model.safetensors"}),
])
def test_an_ended_stage_keeps_scores_and_the_final_model_alone(here, name, kept):
    stage = make_plan(comparison(here, ways=("base", "dapt"), few_rows=(4,)), here / "run")[name]
    for file in ("export/model.safetensors", "checkpoints/7/state", "predictions.jsonl", "seed-4/checkpoints/7/state",
                 "seed-4/export/model.safetensors", "seed-4/export/exported.json"):
        (here / "stage" / file).parent.mkdir(parents=True, exist_ok=True)
        (here / "stage" / file).write_text("x")
    for _ in range(2):  # it may have been killed before its end
        remove_what_no_one_reads(stage, here / "stage")
    assert {str(path.relative_to(here / "stage")) for path in (here / "stage").rglob("*") if path.is_file()} == kept


def test_free_fields_are_those_of_the_workdir():
    from jaxplm.engine import workdir

    assert state.FREE == workdir.FREE


def test_a_way_that_failed_is_in_the_table(here):
    workdir = here / "run"
    config = comparison(here, ways=("base", "dapt+tapt"))
    plan = prepared(config, workdir)
    (workdir / "stages" / "dapt").mkdir(parents=True)
    (workdir / "stages" / "dapt" / "log.txt").write_text("step 1\njaxplm: no disk space\n\n")
    found = Collector(config, plan, workdir, read_task(config, workdir), None, "the command").comparison()
    assert [(way.name, way.runs, way.failure) for way in found.ways] == [
        ("base", (), "finetune/base/final: not run"), ("dapt+tapt", (), "dapt: jaxplm: no disk space")]
    assert (found.metric, found.complete, found.command, found.train_rows) == ("accuracy", True, "the command", 12)


def test_a_few_label_run_that_failed_leaves_the_way_its_score(here):
    workdir = here / "run"
    config = comparison(here, ways=("base",), few_rows=(4,))
    plan = prepared(config, workdir)
    end(plan, workdir, "finetune/base/final", macro_f1=0.5)
    (workdir / "stages" / "finetune" / "base" / "rows=4").mkdir()
    (workdir / "stages" / "finetune" / "base" / "rows=4" / "log.txt").write_text("jaxplm: no disk space\n")
    found = Collector(config, plan, workdir, read_task(config, workdir), None, "the command").comparison()
    (way,) = found.ways
    assert (len(way.runs), way.failure, way.few) == (1, "", ())
    assert_line("\n".join(found.notes), "4 rows", "finetune/base/rows=4", "no disk space")


@pytest.mark.parametrize("way", ["exbert", "extend_vocab+dapt"])
def test_a_way_that_the_model_cannot_do_is_refused_at_the_start(here, monkeypatch, way):
    unigram = SimpleNamespace(backend_tokenizer=Tokenizer(Unigram([("a", -1.0)])))
    monkeypatch.setattr(recipe.hf, "load_tokenizer", lambda *_: (unigram, []))
    with refuses("adapt.ways", way, "Unigram", str(here / "model")):
        recipe.run(comparison(here, ways=("base", way)), here / "run", "the command")
    assert not (here / "run").exists()
