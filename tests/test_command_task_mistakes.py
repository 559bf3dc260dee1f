"""Mistakes in downstream tasks: each ends the real command with status 2 and one line on stderr that names it."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import reconfigure
from commands import Lab, fields
from forked import Outcome, run_all
from messages import assert_line, assert_refusal

pytestmark = pytest.mark.slow

Make = Callable[[Lab, Path], list[str]]


@dataclass(frozen=True)
class Mistake:
    """Flags after those of the good run, what the one line must name, and what a line of stdout must have named before."""

    flags: Make
    says: tuple[str, ...]
    told: tuple[str, ...] = ()
    config: str = "configs/finetune.py"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def good_rows(count: int = 12) -> list[dict[str, Any]]:
    return [{"text": f"the {word} sat on the mat {i}", "label": label} for i in range(count // 2)
            for word, label in (("cat", "animal"), ("house", "thing"))]


def flags(**values: Any) -> Make:
    return lambda lab, here: fields(**values)


def data(rows: list[dict[str, Any]], **values: Any) -> Make:
    """The training data are these rows."""
    return lambda lab, here: fields(data__train=write(here / "mine.jsonl", rows), **values)


def file(name: str, content: bytes, field: str = "data__train", **values: Any) -> Make:
    def make(lab: Lab, here: Path) -> list[str]:
        (here / name).write_bytes(content)
        return fields(**{field: here / name}, **values)
    return make


def other_set(rows: list[dict[str, Any]], field: str) -> Make:
    return lambda lab, here: fields(**{field: write(here / "other.jsonl", rows)})


def same_file(field: str) -> Make:
    def make(lab: Lab, here: Path) -> list[str]:
        shutil.copy(here / "train.jsonl", here / "copy.jsonl")
        return fields(**{field: here / "copy.jsonl"})
    return make


def checkpoint(change: Callable[[Path], object], source: str = "model", **values: Any) -> Make:
    """The model is a copy with a change."""
    def make(lab: Lab, here: Path) -> list[str]:
        shutil.copytree(lab.root / source, here / "model")
        change(here / "model")
        return fields(model__path=here / "model", **values)
    return make


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def cut(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


def tuned(**values: Any) -> Make:
    return lambda lab, here: fields(model__path=lab.root / "tuned", **values)


def workdir_is_a_file(lab: Lab, here: Path) -> list[str]:
    (here / "taken").write_text("")
    return [f"--workdir={here / 'taken'}", *fields(train__freeze="('encoder',)")]


TAGGED = [{"tokens": ["the", "cat"], "tags": ["O", "B-X"]}, {"tokens": ["a", "dog", "ran"], "tags": ["O", "B-X", "O"]}] * 3
MISMATCHED = [{"tokens": ["the", "cat"], "tags": ["O"]}] * 3
ASKED = [{"question": "the cat", "context": f"the cat sat on mat {i}", "answers": [{"text": "mat", "answer_start": 15}]} for i in range(4)]
LOST = [row | {"answers": [{"text": "house", "answer_start": 3}]} for row in ASKED]
STOP = {"train__reinit_layers": 9}  # ends a command that would otherwise train, after its data have been read
STOPPED = ("train.reinit_layers=9", "2 blocks")
EVALUATE = "configs/evaluate.py"
TAG = {"task__kind": "tag", "task__overlap": 8}
QA = {"task__kind": "qa", "task__overlap": 4}

MISTAKES = {
    # columns and labels
    "a column that is not there": Mistake(
        flags(data__text="body"), ("train.jsonl", "'body'", "'text', 'label'", "data.text")),
    "a second text that is not there": Mistake(
        flags(data__text_pair="other"), ("train.jsonl", "'other'", "'text', 'label'", "data.text_pair")),
    "training data without the label column": Mistake(
        data([{"text": "the cat"}, {"text": "a dog"}]), ("mine.jsonl", "'label'", "'text'", "data.label")),
    "validation data without the label column": Mistake(
        other_set([{"text": "the cat"}], "data__validation"),
        ("other.jsonl", "'label'", "'text'", "data.label")),
    "no row with a label": Mistake(
        data([row | {"label": None} for row in good_rows()]), ("mine.jsonl", "12 rows", "label")),
    "no row with a text": Mistake(
        data([row | {"text": " "} for row in good_rows()]), ("mine.jsonl", "12", "empty text")),
    "some rows without label or text": Mistake(
        data([*good_rows(), {"text": "", "label": "thing"}, {"text": "a cat", "label": ""}], **STOP), STOPPED,
        ("warning", "mine.jsonl", "2 of 14 rows", "1", "empty text", "label")),
    "a label that only validation has": Mistake(
        lambda lab, here: fields(data__validation=write(here / "v.jsonl", [*good_rows(2), {"text": "x", "label": "new"}]), **STOP),
        STOPPED, ("warning", "v.jsonl", "1 rows", "errors", "new")),
    "a set of one class": Mistake(
        data([row | {"label": "same"} for row in good_rows()]),
        ("mine.jsonl", "'same'", "data.label")),
    "a list where one label should be": Mistake(
        data([row | {"label": ["a"]} for row in good_rows()]), ("mine.jsonl", "row 1", "list", "task.kind=multilabel")),
    "a list that is written as a text": Mistake(
        data([row | {"label": "['a', 'b']"} for row in good_rows()], task__kind="multilabel"),
        ("mine.jsonl", "row 1", "['a', 'b']", "a|b|c")),
    "a label that is no number": Mistake(
        data([*({"text": f"cat {i}", "label": i} for i in range(3)), {"text": "a dog", "label": "much"}], task__kind="regress"),
        ("mine.jsonl", "row 4", "'much'", "number", "task.kind=regress", "data.label")),
    "an empty file": Mistake(file("empty.jsonl", b""), ("empty.jsonl", "no row")),
    "an empty validation set": Mistake(file("empty.jsonl", b"\n", "data__validation"), ("empty.jsonl", "no row")),
    "rows that are no JSON": Mistake(file("bad.jsonl", b"a\nb\n"), ("bad.jsonl", "2", "parsed")),
    "a file of texts alone": Mistake(
        file("texts.txt", b"the cat\na dog\n"), ("texts.txt", ".txt", "columns", "'text', 'label'")),
    "a file that is not there": Mistake(flags(data__test="./no/such.jsonl"), ("no/such.jsonl",)),
    "one text for train and validation": Mistake(
        lambda lab, here: [*data([{"text": "the cat", "label": str(i % 2)} for i in range(9)])(lab, here), "--config.data.validation="],
        ("training data", "data.validation")),
    "training on the test set": Mistake(
        same_file("data__test"), ("jsonl", "data.train", "data.test")),
    "training on the validation set": Mistake(
        same_file("data__validation"), ("jsonl", "data.train", "data.validation")),
    # tags
    "tagging without tokens": Mistake(
        flags(task__kind="tag"), ("train.jsonl", "'tokens'", "'text', 'label'", "data.tokens")),
    "tags that never match their tokens": Mistake(
        data(MISMATCHED, **TAG), ("mine.jsonl", "3 rows", "tags", "tokens")),
    "tags that do not always match their tokens": Mistake(
        data(TAGGED + MISMATCHED, data__validation="", **TAG, **STOP), STOPPED,
        ("warning", "mine.jsonl", "3 of 9 rows", "tags", "tokens")),
    "a tag of no scheme": Mistake(
        data([*TAGGED, {"tokens": ["x"], "tags": ["X-Y"]}], **TAG), ("mine.jsonl", "'X-Y'", "O", "B-")),
    "windows that share too much": Mistake(
        data(TAGGED, task__kind="tag", task__overlap=30, data__validation=""), ("task.overlap=30", "data.seq_len=32")),
    "entity scores of tags that mark none": Mistake(
        data([row | {"tags": ["D", *["N"] * (len(row["tokens"]) - 1)]} for row in TAGGED], data__validation="", train__metric="f1", **TAG),
        ("train.metric='f1'", "B-", "accuracy", "macro_f1", "micro_f1", "loss")),
    "class scores of tags that mark entities": Mistake(
        data(TAGGED, data__validation="", train__metric="macro_f1", **TAG),
        ("train.metric='macro_f1'", "B-", "f1", "precision", "recall", "accuracy", "loss")),
    # answers
    "questions without a context": Mistake(
        flags(task__kind="qa"), ("train.jsonl", "'question'", "'text', 'label'")),
    "answers that are never in their context": Mistake(
        data(LOST, **QA), ("mine.jsonl", "4", "answer", "context")),
    "answers that are not always in their context": Mistake(
        data(ASKED + LOST[:1], data__validation="", **QA, **STOP), STOPPED,
        ("warning", "mine.jsonl", "1 of 5 rows", "answer", "context")),
    "answers of another form": Mistake(
        data([row | {"answers": "mat"} for row in ASKED], **QA), ("mine.jsonl", "row 1", "answers", "SQuAD")),
    # settings
    "no kind of task": Mistake(flags(task__kind=""), ("task.kind", "classify", "multilabel", "regress", "tag", "qa")),
    "a kind that there is not": Mistake(flags(task__kind="clasify"), ("task.kind='clasify'", "classify")),
    "a metric of another task": Mistake(flags(train__metric="spearman"), ("train.metric='spearman'", "task.kind=classify", "accuracy")),
    "a body for a text": Mistake(flags(task__body="lstm"), ("task.body='lstm'", "task.kind=classify")),
    "pooling of tags": Mistake(flags(task__kind="tag", task__pooling="mean"), ("task.pooling='mean'", "task.kind=tag")),
    "class weights of numbers": Mistake(
        flags(task__kind="regress", task__class_weights="balanced"), ("task.class_weights='balanced'", "task.kind=regress", "classes")),
    "general text": Mistake(lambda lab, here: fields(data__general=lab.general), ("data.general='", "masked language modelling")),
    "rows longer than the positions": Mistake(flags(data__seq_len=64), ("data.seq_len=64", "40 positions")),
    "more new layers than there are": Mistake(flags(**STOP), STOPPED),
    "vectors of an encoder that moves": Mistake(flags(task__cache="on"), ("task.cache=on", "train.freeze=")),
    "freezing what is not there": Mistake(
        flags(train__freeze="('enconder',)"), ("train.freeze='enconder'", "encoder/blocks")),
    "freezing everything": Mistake(flags(train__freeze="('.*',)"), ("train.freeze=", "every parameter")),
    "equal seeds": Mistake(flags(train__seeds="(1,1)"), ("train.seeds=(1, 1)", "different")),
    "seeds of pre-training": Mistake(
        lambda lab, here: fields(data__train=lab.corpus, task__kind="", train__seeds="(1,2)"),
        ("train.seeds=(1, 2)", "downstream tasks", "seed="), config="configs/dapt.py"),
    "a workdir that is a file": Mistake(workdir_is_a_file, ("taken",)),
    # checkpoints
    "a pickle as model": Mistake(checkpoint(pickled), ("pickle", "python -c")),
    "another architecture": Mistake(
        checkpoint(lambda model: reconfigure(model, model_type="gpt2")), ("model_type", "'gpt2'")),
    "a damaged model": Mistake(checkpoint(cut), ("model.safetensors", "damaged")),
    "weights of another model": Mistake(
        checkpoint(lambda model: reconfigure(model, num_hidden_layers=3)), ("weights", "bert", "16 missing", "bert.encoder.layer.2.")),
    "a model that is not there": Mistake(flags(model__path="./no/such/model"), ("./no/such/model",)),
    # evaluation
    "evaluation as another task": Mistake(
        tuned(task__kind="tag"), ("task.kind=tag", "tuned", "classify"), config=EVALUATE),
    "evaluation of a task with a masked LM": Mistake(
        flags(), ("task.kind=classify", "model", "head"), config=EVALUATE),
    "evaluation of general text with a task's head": Mistake(
        lambda lab, here: tuned(data__general=lab.general)(lab, here),
        ("data.general='", "masked language modelling", "tuned", "classify"), config=EVALUATE),
    "evaluation of nothing": Mistake(tuned(data__validation=""), ("data.validation", "data.test"), config=EVALUATE),
    "evaluation without the texts": Mistake(
        tuned(data__text="body"), ("dev.jsonl", "'body'", "'text', 'label'", "data.text"), config=EVALUATE),
    "evaluation of rows that are too long": Mistake(
        tuned(data__seq_len=64), ("data.seq_len=64", "tuned", "40 positions"), config=EVALUATE),
    "evaluation of a damaged model": Mistake(checkpoint(cut, "tuned"), ("model.safetensors", "damaged"), config=EVALUATE),
    "evaluation of a model whose labels are not its own": Mistake(
        checkpoint(lambda model: reconfigure(model, id2label={"0": "a", "1": "b", "2": "c"}), "tuned"),
        ("classifier.",), config=EVALUATE),
}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    import transformers

    config = transformers.BertConfig.from_pretrained(lab.model, id2label={0: "animal", 1: "thing"}, label2id={"animal": 0, "thing": 1})
    checkpoints.save_classifier(lab.root / "tuned", config)
    transformers.AutoTokenizer.from_pretrained(lab.model).save_pretrained(lab.root / "tuned")
    names = [item.callspec.params["name"] for item in request.session.items  # pyright: ignore[reportAttributeAccessIssue]
             if getattr(item, "function", None) is test_one_line_and_status_2]
    places = {name: tmp_path_factory.mktemp("mistake") for name in names}
    jobs = []
    for name, here in places.items():
        mistake = MISTAKES[name]
        write(here / "train.jsonl", good_rows())
        write(here / "dev.jsonl", [row | {"text": row["text"] + " again"} for row in good_rows(4)])
        base = [f"--config={mistake.config}", f"--workdir={here / 'run'}",
                *fields(model__path=lab.model, data__train=here / "train.jsonl", data__validation=here / "dev.jsonl", data__seq_len=32,
                        task__kind="" if "evaluat" in mistake.config and "masked LM" not in name else "classify", train__steps=2)]
        jobs.append([*base, *mistake.flags(lab, here)])
    return dict(zip(names, run_all(lab, jobs), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_and_status_2(name, outcomes):
    done, mistake = outcomes[name], MISTAKES[name]
    assert done.status == 2, f"{done.status}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.out
    assert_refusal(done.err, *mistake.says)
    if mistake.told:
        assert_line(done.out, *mistake.told)
