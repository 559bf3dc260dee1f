"""Fine-tuning, feature extraction and evaluation by the real command, for every kind of task, from files to predictions."""

import csv
import json
import math
import random
import re
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import transformers
from commands import Lab, fields, rows, succeeded, tree, weights
from forked import Outcome, run_all
from helpers import WORDS, same

import jaxplm
from jaxplm import hf

SCORES = {"classify": {"accuracy", "macro_f1", "micro_f1", "mcc"}, "multilabel": {"accuracy", "macro_f1", "micro_f1"},
          "regress": {"spearman", "pearson", "mse"}, "tag": {"f1", "precision", "recall", "accuracy"}, "qa": {"f1", "exact_match"}}
NOUNS = {"cat": "animal", "dog": "animal", "tree": "plant", "house": "thing", "mat": "thing", "river": "thing"}
OTHERS = [word for word in WORDS if word not in NOUNS]
SEEDS = (1, 2)


def sentence(rng: random.Random, length: int) -> list[str]:
    return [rng.choice(OTHERS) for _ in range(length)]


def jsonl(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def table(path: Path, made: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path


def texts(count: int, seed: int) -> list[dict[str, Any]]:
    """Three classes; the last is rare."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        noun = rng.choice(["cat", "dog", "house", "mat", "river"] if i % 8 else ["tree"])
        words = sentence(rng, rng.randint(2, 9))
        made.append({"text": " ".join([*words, noun]), "label": NOUNS[noun]})
    return made


def write_classify(here: Path) -> None:
    jsonl(here / "train.jsonl", texts(64, 0))
    jsonl(here / "dev.jsonl", texts(24, 1))
    jsonl(here / "test.jsonl", [*texts(24, 2), {"text": "a red cat", "label": ""}, {"text": "the old mat", "label": "new"}])


def write_multilabel(here: Path) -> None:
    for name, count, seed in (("train", 48, 0), ("dev", 16, 1), ("test", 16, 2)):
        rng = random.Random(seed)
        made = []
        for _ in range(count):
            nouns = rng.sample(list(NOUNS), rng.randint(1, 2))
            made.append({"text": " ".join([*sentence(rng, 4), *nouns]), "label": "|".join(sorted({NOUNS[noun] for noun in nouns}))})
        if name == "test":
            made[3]["label"] = "thing|new"
        table(here / f"{name}.csv", made)


def write_regress(here: Path) -> None:
    """Validation and test want the opposite of what training teaches: the first evaluation is the best one."""
    for name, count, seed, value in (("train", 64, 0, 8.0), ("dev", 16, 1, -8.0), ("test", 16, 2, -8.0)):
        rng = random.Random(seed)
        table(here / f"{name}.tsv.csv", [{"a": " ".join(sentence(rng, 3)), "b": " ".join(sentence(rng, 4)), "score": value + i % 3}
                                         for i in range(count)])


def write_tag(here: Path) -> None:
    """CoNLL files; one sentence of the test set is too long for a row, and its tags are BIOES."""
    for name, count, seed in (("train", 40, 0), ("dev", 12, 1), ("test", 12, 2)):
        rng = random.Random(seed)
        lines = []
        for i in range(count):
            for _ in range(25 if (name, i) == ("test", 5) else 2):
                lines += [f"{word} O" for word in sentence(rng, rng.randint(1, 2))]
                noun = rng.choice(list(NOUNS))
                kind = NOUNS[noun]
                lines += [f"small B-{kind}", f"{noun} {'E' if name == 'test' else 'I'}-{kind}"]
            lines.append("")
        (here / f"{name}.conll").write_text("\n".join(lines) + "\n")


def write_qa(here: Path) -> None:
    """SQuAD 2.0; every fifth question has no answer, and one context needs several windows."""
    for name, count, seed in (("train", 40, 0), ("dev", 12, 1), ("test", 12, 2)):
        rng = random.Random(seed)
        paragraphs = []
        for i in range(count):
            noun = rng.choice(list(NOUNS))
            words = sentence(rng, 50 if (name, i) == ("test", 3) else rng.randint(4, 9))
            if i % 5:
                words.insert(rng.randrange(len(words)), noun)
            context = " ".join(words)
            answers = [{"text": noun, "answer_start": context.index(noun)}] if i % 5 else []
            paragraphs.append({"context": context, "qas": [
                {"id": f"{name}-{i}", "question": f"the {noun}", "answers": answers, "is_impossible": not answers}]})
        (here / f"{name}.json").write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))


@dataclass(frozen=True)
class Case:
    """A run and the evaluation of what it exported."""

    write: Callable[[Path], None]
    ending: str
    kind: str
    settings: dict[str, Any]  # of the run alone
    data: dict[str, Any]  # of the evaluation too
    config: str = "configs/finetune.py"


CASES = {
    "classify": Case(write_classify, "jsonl", "classify",
                     {"train__seeds": SEEDS, "train__metric": "macro_f1", "checkpoint__every": 1, "train__log_every": 1}, {}),
    "multilabel": Case(write_multilabel, "csv", "multilabel", {}, {}),
    "regress": Case(write_regress, "tsv.csv", "regress",
                    {"train__metric": "mse", "train__patience": 2, "train__eval_every": 2, "train__steps": 60,
                     "train__schedule": "constant"},
                    {"data__text": "a", "data__text_pair": "b", "data__label": "score"}),
    "tag": Case(write_tag, "conll", "tag", {"task__class_weights": "balanced"}, {"task__overlap": 8}),
    "qa": Case(write_qa, "json", "qa", {}, {"task__overlap": 8}),
    "extraction": Case(write_classify, "jsonl", "classify",
                       {"train__freeze": ("encoder",), "train__steps": 30, "train__learning_rate": 3e-2}, {},
                       "configs/feature_extraction.py"),
}


@dataclass(frozen=True)
class Runs:
    lab: Lab

    def data(self, name: str) -> Path:
        return self.lab.root / "tasks" / name

    def workdir(self, name: str) -> Path:
        return self.data(name) / "run"

    def file(self, name: str, split: str) -> Path:
        return self.data(name) / f"{split}.{CASES[name].ending}"

    def training(self, name: str, workdir: Path | None = None) -> list[str]:
        case = CASES[name]
        settings = {"train__steps": 12, "train__batch_size": 8, "train__learning_rate": 5e-3, "train__eval_every": 4, "train__log_every": 2,
                    "train__warmup": 0, "checkpoint__every": 100} | case.settings | case.data
        return [f"--config={case.config}", f"--workdir={workdir or self.workdir(name)}",
                *fields(model__path=self.lab.model, data__train=self.file(name, "train"), data__validation=self.file(name, "dev"),
                        data__test=self.file(name, "test"), data__seq_len=32, task__kind=case.kind, compute__dtype="float32", **settings)]

    def evaluation(self, name: str, workdir: Path, **more: Any) -> list[str]:
        settings = {"data__test": self.file(name, "test"), "data__seq_len": 32, "train__batch_size": 32,
                    "compute__dtype": "float32"} | CASES[name].data | more
        return ["--config=configs/evaluate.py", f"--workdir={workdir}", *fields(model__path=self.workdir(name) / "export", **settings)]


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    return Runs(lab)


@pytest.fixture(scope="module")
def trained(runs: Runs) -> dict[str, Outcome]:
    """Every case from start to export."""
    for name, case in CASES.items():
        runs.data(name).mkdir(parents=True)
        case.write(runs.data(name))
    outcomes = dict(zip(CASES, run_all(runs.lab, [runs.training(name) for name in CASES]), strict=True))
    for outcome in outcomes.values():
        outcome.succeeded()
    return outcomes


@pytest.fixture(scope="module")
def second(runs: Runs, trained) -> dict[str, Outcome]:
    """What is done with the exports, and the same commands again."""
    (runs.lab.root / "plain.txt").write_text("the red cat\na house\n\nthe old tree\n".replace("\n\n", "\n"))
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


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]


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
    metric = json.loads((workdir / "export" / "exported.json").read_text())["metric"]
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
    assert re.search(r"no gain in 2 evaluations: stopping at step 6", trained["regress"].out)
    mse = {row["step"]: row["mse"] for row in found if row["split"] == "validation"}
    assert mse[2] < mse[4] < mse[6]


@pytest.mark.parametrize("name", CASES)
def test_a_prediction_for_every_row_in_order(runs, trained, name):
    found = predictions(runs.workdir(name))
    assert [one["row"] for one in found] == list(range(len(found)))
    assert len(found) == {"classify": 26, "extraction": 26, "multilabel": 16, "regress": 16, "tag": 12, "qa": 12}[name]
    assert all({"label", "scores"} <= one.keys() for one in found) or name == "regress"


def test_what_the_user_is_told(runs, trained):
    out = trained["classify"].out
    for said in ("warning: ", "1 rows with labels that training never saw, which count as errors: new",
                 "test.jsonl: rows that are not scored: 1 without a label",
                 "evaluation at step 0: validation", "seed 1: ", "seed 2: ", "exported: ", "mean ± std"):
        assert said in out, said
    assert "vectors of the frozen encoder for 64 texts" in trained["extraction"].out
    assert "vectors of the frozen encoder" not in out


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
        assert "is finished" in out and len(out.splitlines()) == 1


def test_killed_in_the_second_seed_and_gone_on_with(runs, trained, tmp_path):
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
    assert re.search(r"seed-1 is finished", out) and "going on from step" in out
    reference = runs.workdir("classify")
    assert weights(workdir) == weights(reference)
    assert rows(workdir) == rows(reference)
    assert predictions(workdir) == predictions(reference)
    for seed in SEEDS:
        assert rows(workdir / f"seed-{seed}") == rows(reference / f"seed-{seed}")


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
    assert "no labels, so no scores" in out
    found = predictions(runs.lab.root / "unlabelled")
    assert [one["row"] for one in found] == [0, 1, 2] and all(one["label"] in NOUNS.values() for one in found)
    assert rows(runs.lab.root / "unlabelled") == []


def test_two_sets(runs, second):
    second["both sets"].succeeded()
    assert [row["split"] for row in rows(runs.lab.root / "both")] == ["validation", "test"]
    assert predictions(runs.lab.root / "both") == predictions(runs.data("classify") / "eval"), "of the last set"


def test_further_pre_training_of_a_fine_tuned_model(runs, second):
    """Its head goes, which is told; the encoder is taken."""
    out = second["dapt"].succeeded()
    assert re.search(r"export: .*(head|mlm)", out, re.I), out


# ---------------------------------------------------------------- exports


def stock(runs: Runs, name: str):
    """The model and tokenizer as stock transformers loads them, in silence."""
    head = {"tag": "TokenClassification", "qa": "QuestionAnswering"}.get(name, "SequenceClassification")
    with checkpoints.listening() as heard, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model, told = getattr(transformers, f"AutoModelFor{head}").from_pretrained(runs.workdir(name) / "export", output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(runs.workdir(name) / "export")
    assert heard == [] and warned == [] and not any(told.values()), told
    return model.eval(), tokenizer


def logits_of(model: Any, batch: Any) -> np.ndarray:
    with torch.no_grad():
        output = model(**batch)
    return (torch.stack([output.start_logits, output.end_logits], -1) if hasattr(output, "start_logits") else output.logits).numpy()


@pytest.mark.parametrize("name", ["classify", "multilabel", "regress"])
def test_stock_transformers_predicts_the_same(runs, trained, name):
    model, tokenizer = stock(runs, name)
    made = ([json.loads(line) for line in runs.file(name, "test").read_text().splitlines()] if name == "classify"
            else list(csv.DictReader(runs.file(name, "test").read_text().splitlines())))
    given = [[row["a"] for row in made], [row["b"] for row in made]] if name == "regress" else [[row["text"] for row in made]]
    logits = logits_of(model, tokenizer(*given, padding=True, return_tensors="pt"))
    names, found = model.config.id2label, predictions(runs.workdir(name))
    assert len(found) == len(logits)
    if name == "regress":
        np.testing.assert_allclose([one["label"] for one in found], logits[:, 0], atol=1e-4)
    elif name == "classify":
        assert list(names.values()) == sorted(set(NOUNS.values()))
        assert [one["label"] for one in found] == [names[i] for i in logits.argmax(-1)]
        np.testing.assert_allclose([list(one["scores"].values()) for one in found],
                                   torch.tensor(logits).softmax(-1).numpy(), atol=1e-4)
    else:
        assert [one["label"] for one in found] == [[names[i] for i in np.flatnonzero(row > 0)] for row in logits]


def test_stock_transformers_tags_the_same(runs, trained):
    model, tokenizer = stock(runs, "tag")
    parts = runs.file("tag", "test").read_text().strip().split("\n\n")
    sentences = [[line.split()[0] for line in part.splitlines()] for part in parts]
    found = predictions(runs.workdir("tag"))
    assert [len(one["label"]) for one in found] == list(map(len, sentences))
    assert max(map(len, sentences)) > 32, "one of several windows"
    short = [i for i, words in enumerate(sentences) if len(words) < 30]
    batch = tokenizer([sentences[i] for i in short], is_split_into_words=True, padding=True, return_tensors="pt")
    chosen = logits_of(model, batch).argmax(-1)
    for row, i in enumerate(short):
        word_ids = batch.word_ids(row)
        first = [word_ids.index(word) for word in range(len(sentences[i]))]
        assert found[i]["label"] == [model.config.id2label[int(chosen[row, place])] for place in first], i


def test_stock_transformers_answers_the_same(runs, trained):
    model, tokenizer = stock(runs, "qa")
    paragraphs = json.loads(runs.file("qa", "test").read_text())["data"][0]["paragraphs"]
    found = predictions(runs.workdir("qa"))
    assert [one["id"] for one in found] == [f"test-{i}" for i in range(12)]
    short = 0
    for one, paragraph in zip(found, paragraphs, strict=True):
        batch = tokenizer(paragraph["qas"][0]["question"], paragraph["context"], return_tensors="pt")
        if batch["input_ids"].shape[1] > 32:
            continue
        short += 1
        start, end = logits_of(model, batch)[0].T
        places = [place for place, part in enumerate(batch.sequence_ids(0)) if part == 1]
        best = max(((i, j) for i in places for j in places if i <= j < i + 30), key=lambda span: start[span[0]] + end[span[1]])
        score, null = start[best[0]] + end[best[1]], start[0] + end[0]
        if abs(score - null) < 1e-3:
            continue
        if score <= null:
            assert (one["label"], one["start"], one["scores"]) == ("", -1, None)
        else:
            begin, stop = batch.token_to_chars(best[0]).start, batch.token_to_chars(best[1]).end
            assert one["scores"] == pytest.approx(score, abs=1e-3)
            assert (one["label"], one["start"]) == (paragraph["context"][begin:stop], begin)
    assert short >= 10


@pytest.mark.parametrize("name", ["classify", "extraction"])
def test_the_same_in_python(runs, trained, name):
    model, tokenizer = jaxplm.load(str(runs.workdir(name) / "export"))
    made = [json.loads(line)["text"] for line in runs.file(name, "test").read_text().splitlines()]
    scores = np.asarray(model.logits(**tokenizer(made, padding=True, return_tensors="np")))
    assert [model.labels[i] for i in scores.argmax(-1)] == [one["label"] for one in predictions(runs.workdir(name))]


def test_feature_extraction_leaves_the_encoder_as_it_was(runs, trained):
    export = runs.workdir("extraction") / "export"
    found = hf.load_task_model(str(export))
    assert same(found.params["encoder"], hf.load(str(runs.lab.model)).params["encoder"])
    assert (found.head.pooling, found.head.layers, found.head.stock) == ("mean", "mix", False)
    with checkpoints.listening() as heard:
        _, told = transformers.AutoModel.from_pretrained(export, output_loading_info=True)
    assert heard == [] and not any(told.values())
    assert {path.name for path in (runs.workdir("extraction") / "vectors").iterdir()} == {
        f"{split}.{ending}" for split in ("train", "validation", "test") for ending in ("npy", "json")}
