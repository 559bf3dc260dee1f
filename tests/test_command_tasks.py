"""Fine-tuning, feature extraction and evaluation by the real command, for every kind of task, from files to predictions."""

import json
import math
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import Lab, fields, rows, succeeded, tree, weights
from forked import Outcome, run_all
from messages import assert_line, assert_refusal, assert_says
from task_runs import CASES, NOUNS, SEEDS, Runs, predictions, train_all

from jaxplm.config import Config, Data, Model, Task, Train
from jaxplm.errors import UserError
from jaxplm.recipes.finetune.labelled_sets import read_sets
from jaxplm.scores import row_parts
from jaxplm.tasks.kinds.kind import RowSet
from jaxplm.tasks.row_parts import parts_of

pytestmark = pytest.mark.slow

SCORES = {"classify": {"accuracy", "macro_f1", "micro_f1", "mcc"}, "multilabel": {"accuracy", "macro_f1", "micro_f1"},
          "regress": {"spearman", "pearson", "mse"}, "tag": {"f1", "precision", "recall", "strict_f1", "accuracy"},
          "qa": {"f1", "exact_match"}}


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    return Runs(lab)


@pytest.fixture(scope="module")
def trained(lab: Lab) -> dict[str, Outcome]:
    return train_all(lab)


@pytest.fixture(scope="module")
def second(runs: Runs, trained) -> dict[str, Outcome]:
    """What is done with the exports, and the same commands again."""
    (runs.lab.root / "plain.txt").write_text("the red cat\na house\nthe old tree\n")
    jobs = {name: runs.evaluation(name, runs.data(name) / "eval") for name in CASES}
    jobs["unlabelled"] = runs.evaluation("classify", runs.lab.root / "unlabelled", data__test=runs.lab.root / "plain.txt")
    jobs["both sets"] = runs.evaluation("classify", runs.lab.root / "both", data__validation=runs.file("classify", "dev"))
    jobs["again"] = runs.training("classify")
    jobs["again alone"] = runs.training("tag")
    jobs["dapt"] = [f"--workdir={runs.lab.root / 'after'}", "--config=configs/dapt.py",
                    *fields(model__path=runs.workdir("classify") / "export", data__train=runs.lab.corpus, data__seq_len=32,
                            train__batch_size=8, train__steps=1)]
    before = {name: tree(runs.workdir(name)) for name in ("classify", "tag")}
    outcomes = dict(zip(jobs, run_all(runs.lab, list(jobs.values())), strict=True))
    assert before == {name: tree(runs.workdir(name)) for name in before}, "finished runs are left as they are"
    return outcomes


def single(runs: Runs, name: str) -> Path:
    """The workdir of one run of the loop."""
    return runs.workdir(name) / f"seed-{SEEDS[0]}" if name == "classify" else runs.workdir(name)


def exported_step(workdir: Path) -> int:
    return json.loads((workdir / "export" / "exported.json").read_text())["step"]


# ---------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("name", CASES)
def test_the_workdir(runs, trained, name):
    workdir = single(runs, name)
    there = {str(path.relative_to(workdir)) for path in workdir.rglob("*")}
    stock = name != "extraction"
    for file in ("config.json", "metrics.jsonl", "report.md", "predictions.jsonl", "export/config.json", "export/model.safetensors",
                 "export/tokenizer.json", "export/README.md", "export/exported.json", *([] if stock else ["export/jaxplm.json"])):
        assert file in there, file
    assert ("plots/confusion.png" in there) == (CASES[name].kind == "classify")
    assert [file for file in there if file.startswith("plots/") and "confusion" not in file]
    assert not [file for file in there if "partial" in file or ".tmp" in file]
    report, card = (workdir / "report.md").read_text(), (workdir / "export" / "README.md").read_text()
    for text in (report, card):
        assert f"python -m jaxplm.main --config={CASES[name].config}" in text
        assert "test" in text and "training 1" in text, "how many compilations a run had"
    assert card.startswith("---\n")


@pytest.mark.parametrize("name", CASES)
def test_metrics(runs, trained, name):
    workdir, kind = single(runs, name), CASES[name].kind
    found = rows(workdir, clocks=True)
    assert (found[0]["step"], found[0]["split"]) == (0, "validation")
    splits = [row["split"] for row in found]
    assert set(splits) == {"train", "validation", "test"} and splits.count("test") == 1 and splits[-1] == "test"
    assert found[-1]["step"] == exported_step(workdir)
    for row in found:
        if row["split"] == "train":
            assert {"loss", "learning_rate", "tokens_per_second", "seconds", "tokens"} <= row.keys()
            assert row["tokens"] > 0 and math.isfinite(row["loss"])
        else:
            assert row.keys() - {"step", "split", "seconds"} == SCORES[kind] | {"loss"}
    if name in ("multilabel", "tag", "qa", "extraction"):
        validation = [row["loss"] for row in found if row["split"] == "validation"]
        assert validation[-1] < 0.95 * validation[0], "it learns"


@pytest.mark.parametrize("name", CASES)
def test_the_best_state_is_exported(runs, trained, name):
    workdir = single(runs, name)
    note = json.loads((workdir / "export" / "exported.json").read_text())
    assert ("reading" in note) == (CASES[name].kind == "tag"), "how tagged sentences were read"
    metric = note["metric"]
    assert metric == {"classify": "macro_f1", "extraction": "accuracy", "multilabel": "micro_f1", "regress": "mse"}.get(name, "f1")
    validation = [(row["step"], row[metric]) for row in rows(workdir) if row["split"] == "validation" and row["step"] > 0]
    best = (min if metric == "mse" else max)(value for _, value in validation)
    assert exported_step(workdir) == next(step for step, value in validation if value == best)


def test_patience_ends_early_and_the_last_state_is_not_the_best(runs, trained):
    workdir = runs.workdir("regress")
    found = rows(workdir)
    assert [row["step"] for row in found if row["split"] == "validation"] == [0, 2, 4, 6]
    assert max(row["step"] for row in found if row["split"] == "train") == 6, "of 60"
    assert exported_step(workdir) == 2
    assert_line(trained["regress"].out, "2 evaluations", "step 6")
    mse = {row["step"]: row["mse"] for row in found if row["split"] == "validation"}
    assert mse[2] < mse[4] < mse[6]


@pytest.mark.parametrize("name", CASES)
def test_a_prediction_for_every_row_in_order(runs, trained, name):
    found = predictions(runs.workdir(name))
    assert [one["row"] for one in found] == list(range(len(found)))
    assert len(found) == {"classify": 26, "extraction": 26, "multilabel": 16, "regress": 16, "tag": 12, "qa": 12}[name]
    assert all({"label", "scores"} <= one.keys() for one in found) or name == "regress"


@pytest.mark.parametrize("name", CASES)
def test_scores_are_recomputed_from_predictions(runs, trained, name):
    """From predictions.jsonl and the labels, with every row once, follow the scores of metrics.jsonl."""
    case, workdir = CASES[name], single(runs, name)
    files = {split: str(runs.file(name, file)) for split, file in (("train", "train"), ("validation", "dev"), ("test", "test"))}
    data = Data(**files, **{field.removeprefix("data__"): value for field, value in case.data.items() if field.startswith("data__")})
    sets = read_sets(Config(recipe="finetune", model=Model(path=""), data=data, task=Task(kind=case.kind), train=Train()))
    test = RowSet(sets.evaluated["test"], sets.labels, Task(kind=case.kind))
    (row,) = [row for row in rows(workdir) if row["split"] == "test"]
    for metric in SCORES[case.kind]:
        parts = parts_of(workdir / "predictions.jsonl", sets.kind, metric, test)
        assert parts is not None and len(parts) == test.examples.labelled.sum()
        assert row_parts.score(parts)[0] == pytest.approx(row[metric], rel=1e-12, abs=1e-12), metric
    assert parts_of(workdir / "predictions.jsonl", sets.kind, "loss", test) is None
    with pytest.raises(UserError) as said:
        parts_of(workdir / "predictions.jsonl", sets.kind, "accuracy", test._replace(examples=test.examples.select(range(10))))
    assert_says(str(said.value), "predictions.jsonl", "test set")


def test_what_the_user_is_told(runs, trained):
    out = trained["classify"].out
    assert_line(out, "warning", "1 rows", "labels", "errors", "new")
    assert_line(out, "test.jsonl", "scored", "1", "label")
    assert_line(out, "step 0", "validation")
    for line in ("seed 1:", "seed 2:", "exported", "mean ± std"):
        assert_line(out, line)
    assert_line(trained["extraction"].out, "frozen encoder", "64 texts")
    assert "frozen encoder" not in out


# ---------------------------------------------------------------- seeds


def test_seeds(runs, trained):
    workdir = runs.workdir("classify")
    found = {seed: rows(workdir / f"seed-{seed}") for seed in SEEDS}
    assert found[1] != found[2], "seeds differ"
    summed = rows(workdir)
    assert {(row["seed"], row["split"]) for row in summed} == {(seed, split) for seed in SEEDS for split in ("validation", "test")}
    for row in summed:
        own = next(one for one in found[row["seed"]] if (one["split"], one["step"]) == (row["split"], row["step"]))
        assert {name: value for name, value in row.items() if name != "seed"} == own
    values = np.array([row["macro_f1"] for row in summed if row["split"] == "test"])
    expected = f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
    report = (workdir / "report.md").read_text()
    assert expected in report and "## Seeds" in report
    chosen = {row["seed"]: row["macro_f1"] for row in summed if row["split"] == "validation"}
    best = max(SEEDS, key=lambda seed: (chosen[seed], -seed))
    assert weights(workdir) == weights(workdir / f"seed-{best}")
    assert (workdir / "predictions.jsonl").read_bytes() == (workdir / f"seed-{best}" / "predictions.jsonl").read_bytes()
    assert f"seed {best}" in trained["classify"].out.splitlines()[-1]
    assert not list(workdir.glob("*.partial"))


def test_a_finished_run_says_so(second):
    for name in ("again", "again alone"):
        out = second[name].succeeded()
        assert_says(out, "finished")
        others = [line for line in out.splitlines() if "finished" not in line]
    assert [line for line in others if "takes the place of" not in line] == []  # what a flag replaced may be said again


def test_killed_in_the_second_seed_and_resumed(runs, trained, tmp_path):
    workdir = tmp_path / "run"
    flags = runs.training("classify", workdir)
    with runs.lab.started(flags) as command:
        command.wait_for("^seed 2: ")
        command.wait_for(r"^step 6/")
        time.sleep(random.uniform(0, 0.2))
        status, _, _ = command.stop(signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (workdir / "export").exists() and (workdir / "seed-1" / "export").exists()
    out = succeeded(runs.lab.run(flags))
    assert_line(out, "seed-1", "finished")
    assert re.search(r"\bstep [1-9]\d* of 12\b", out), "the second seed does not start again"
    reference = runs.workdir("classify")
    assert weights(workdir) == weights(reference)
    assert rows(workdir) == rows(reference)
    assert predictions(workdir) == predictions(reference)
    for seed in SEEDS:
        assert rows(workdir / f"seed-{seed}") == rows(reference / f"seed-{seed}")


DELETED = {  # → what the log names
    "the export": (["export"], ["export/config.json"]),
    "parts of all exports": (["export/model.safetensors", "seed-1/export/model.safetensors", "seed-2/export"],
                             ["export/model.safetensors", "seed-1", "seed-2", "export/config.json", "and 4 more"]),
}


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_deleted_parts_of_the_exports_of_seeds_are_rebuilt(runs, trained, tmp_path):
    reference, names = runs.workdir("classify"), ("export", "seed-1/export", "seed-2/export")
    for why, (deleted, _) in DELETED.items():
        shutil.copytree(reference, tmp_path / why)
        for name in deleted:
            remove(tmp_path / why / name)
    outcomes = run_all(runs.lab, [runs.training("classify", tmp_path / why) for why in DELETED])
    for (why, (_, says)), outcome in zip(DELETED.items(), outcomes, strict=True):
        assert_says(outcome.succeeded(), *says)
        for name in names:
            found, wanted = tree(tmp_path / why / name), tree(reference / name)
            assert found.keys() == wanted.keys(), why
            assert [file for file in wanted if file != "README.md" and found[file][1] != wanted[file][1]] == [], why
        assert rows(tmp_path / why) == rows(reference), why
        assert predictions(tmp_path / why) == predictions(reference), why


def test_an_export_of_a_seed_that_nothing_is_left_of(runs, trained, tmp_path):
    """Its checkpoints are gone too: the run asks what to do before it trains."""
    workdir = tmp_path / "run"
    shutil.copytree(runs.workdir("classify"), workdir)
    for name in ("export/config.json", "seed-2/export/config.json", "seed-2/checkpoints"):
        remove(workdir / name)
    before = tree(workdir)
    done = runs.lab.run(runs.training("classify", workdir))
    assert done.returncode == 2
    assert_refusal(done.stderr, str(workdir / "seed-2"), "export/config.json", "remove", "--workdir")
    assert tree(workdir) == before


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("name", CASES)
def test_evaluation_gives_the_runs_own_numbers(runs, second, name):
    out = second[name].succeeded()
    workdir = runs.data(name) / "eval"
    own = single(runs, name)
    if name == "classify":  # the seed that was exported
        own = next(place for place in sorted(runs.workdir(name).glob("seed-*")) if weights(place) == weights(runs.workdir(name)))
    test = next(row for row in rows(own) if row["split"] == "test")
    found = rows(workdir)
    assert [(row["step"], row["split"]) for row in found] == [(0, "test")]
    assert found[0].keys() == test.keys()
    for score, value in test.items():
        if score not in ("step", "split") and not (name == "tag" and score == "loss"):  # the run's loss has class weights
            assert found[0][score] == pytest.approx(value, abs=1e-5), score
    assert len(predictions(workdir)) == len(predictions(own))
    for one, other in zip(predictions(workdir), predictions(own), strict=True):
        assert one.keys() == other.keys()
        if name == "regress":
            assert one["label"] == pytest.approx(other["label"], abs=1e-4)
        else:
            assert one["label"] == other["label"]
    assert f"{len(predictions(workdir))} predictions: " in out


def test_rows_without_labels(runs, second):
    out = second["unlabelled"].succeeded()
    assert_line(out, "labels", "scores")
    found = predictions(runs.lab.root / "unlabelled")
    assert [one["row"] for one in found] == [0, 1, 2] and all(one["label"] in NOUNS.values() for one in found)
    assert rows(runs.lab.root / "unlabelled") == []


def test_two_sets(runs, second):
    second["both sets"].succeeded()
    assert [row["split"] for row in rows(runs.lab.root / "both")] == ["validation", "test"]
    assert predictions(runs.lab.root / "both") == predictions(runs.data("classify") / "eval"), "of the last set"


def test_further_pre_training_of_a_fine_tuned_model(runs, second):
    """Its head is dropped, with a message; its encoder is used."""
    out = second["dapt"].succeeded()
    assert re.search(r"export: .*(head|mlm)", out, re.I), out
