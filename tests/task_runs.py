"""Small labelled data for every kind of task, and the runs on them that several tests share."""

import csv
import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import Lab, fields
from forked import Outcome, run_all
from helpers import WORDS

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
    """Return rows of three classes; the last is rare."""
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
    """Write rows whose validation and test labels are the opposite of the training labels: the first evaluation is the best one."""
    for name, count, seed, value in (("train", 64, 0, 8.0), ("dev", 16, 1, -8.0), ("test", 16, 2, -8.0)):
        rng = random.Random(seed)
        table(here / f"{name}.tsv.csv", [{"a": " ".join(sentence(rng, 3)), "b": " ".join(sentence(rng, 4)), "score": value + i % 3}
                                         for i in range(count)])


def write_tag(here: Path) -> None:
    """Write CoNLL files; one sentence of the test set is too long for a row, and its tags are BIOES."""
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
    """Write SQuAD 2.0; every fifth question has no answer, and one context needs several windows."""
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


@functools.cache
def train_all(lab: Lab) -> dict[str, Outcome]:
    """Run every case from start to export, once for all tests."""
    runs = Runs(lab)
    for name, case in CASES.items():
        runs.data(name).mkdir(parents=True)
        case.write(runs.data(name))
    outcomes = dict(zip(CASES, run_all(lab, [runs.training(name) for name in CASES]), strict=True))
    for outcome in outcomes.values():
        outcome.succeeded()
    return outcomes


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
