"""Mistakes in downstream tasks: each ends the real command with status 2 and one line on stderr that names it."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import reconfigure
from commands import Lab, fields
from forked import Outcome, run_all

Make = Callable[[Lab, Path], list[str]]


@dataclass(frozen=True)
class Mistake:
    """Flags after those of the good run, what the one line must say, and what stdout must have said before."""

    flags: Make
    line: str  # regular expression for the whole of it, after "jaxplm: "
    told: str = ""
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
STOPPED = r"train\.reinit_layers=9: the model has only 2 blocks"
EVALUATE = "configs/evaluate.py"
TAG = {"task__kind": "tag", "task__overlap": 8}
QA = {"task__kind": "qa", "task__overlap": 4}

MISTAKES = {
    # columns and labels
    "a column that is not there": Mistake(
        flags(data__text="body"), r"\S+train\.jsonl has no column 'body'; it has 'text', 'label' \(set data\.text\)"),
    "a second text that is not there": Mistake(
        flags(data__text_pair="other"), r"\S+train\.jsonl has no column 'other'; it has 'text', 'label' \(set data\.text_pair\)"),
    "training data without the label column": Mistake(
        data([{"text": "the cat"}, {"text": "a dog"}]), r"\S+mine\.jsonl has no column 'label'; it has 'text' \(set data\.label\)"),
    "validation data without the label column": Mistake(
        other_set([{"text": "the cat"}], "data__validation"),
        r"\S+other\.jsonl has no column 'label'; it has 'text' \(set data\.label\)"),
    "no row with a label": Mistake(
        data([row | {"label": None} for row in good_rows()]), r"\S+mine\.jsonl: none of its 12 rows has a label"),
    "no row with a text": Mistake(
        data([row | {"text": " "} for row in good_rows()]), r"\S+mine\.jsonl: no row can be trained on: 12 with an empty text"),
    "some rows without label or text": Mistake(
        data([*good_rows(), {"text": "", "label": "thing"}, {"text": "a cat", "label": ""}], **STOP), STOPPED,
        r"warning: \S+mine\.jsonl: 2 of 14 rows left out of training: 1 with an empty text, 1 without a label"),
    "a label that only validation has": Mistake(
        lambda lab, here: fields(data__validation=write(here / "v.jsonl", [*good_rows(2), {"text": "x", "label": "new"}]), **STOP),
        STOPPED, r"warning: \S+v\.jsonl: 1 rows with labels that training never saw, which count as errors: new"),
    "a set of one class": Mistake(
        data([row | {"label": "same"} for row in good_rows()]),
        r"\S+mine\.jsonl: a task needs two or more labels, its rows have only 'same' .*data\.label.*"),
    "a list where one label should be": Mistake(
        data([row | {"label": ["a"]} for row in good_rows()]), r"\S+mine\.jsonl row 1: a list where one label .* task\.kind=multilabel .*"),
    "a list that is written as a text": Mistake(
        data([row | {"label": "['a', 'b']"} for row in good_rows()], task__kind="multilabel"),
        r"\S+mine\.jsonl row 1: the labels .* are a list written as a text; .*"),
    "a label that is no number": Mistake(
        data([*({"text": f"cat {i}", "label": i} for i in range(3)), {"text": "a dog", "label": "much"}], task__kind="regress"),
        r"\S+mine\.jsonl row 4: the label 'much' is not a number, which task\.kind=regress needs \(see data\.label\)"),
    "an empty file": Mistake(file("empty.jsonl", b""), r"\S+empty\.jsonl: no row found"),
    "an empty validation set": Mistake(file("empty.jsonl", b"\n", "data__validation"), r"\S+empty\.jsonl: no row found"),
    "rows that are no JSON": Mistake(file("bad.jsonl", b"a\nb\n"), r"\S+bad\.jsonl: no row found \(2 could not be parsed\)"),
    "a file of texts alone": Mistake(
        file("texts.txt", b"the cat\na dog\n"), r"\S+texts\.txt: a \.txt file has texts alone, no columns; .* 'text', 'label'"),
    "a file that is not there": Mistake(flags(data__test="./no/such.jsonl"), r"no file \S*no/such\.jsonl.*"),
    "one text for train and validation": Mistake(
        lambda lab, here: [*data([{"text": "the cat", "label": str(i % 2)} for i in range(9)])(lab, here), "--config.data.validation="],
        r"the training data has no two different texts to hold one out: give data\.validation"),
    "training on the test set": Mistake(
        same_file("data__test"), r"\S+(train|copy)\.jsonl is given as data\.train and as data\.test: .*"),
    "training on the validation set": Mistake(
        same_file("data__validation"), r"\S+(train|copy)\.jsonl is given as data\.train and as data\.validation: .*"),
    # tags
    "tagging without tokens": Mistake(
        flags(task__kind="tag"), r"\S+train\.jsonl has no column 'tokens'; it has 'text', 'label' \(set data\.tokens\)"),
    "tags that never match their tokens": Mistake(
        data(MISMATCHED, **TAG), r"\S+mine\.jsonl: none of its 3 rows has a label: 3 have tags that do not match their tokens"),
    "tags that do not always match their tokens": Mistake(
        data(TAGGED + MISMATCHED, data__validation="", **TAG, **STOP), STOPPED,
        r"warning: \S+mine\.jsonl: 3 of 9 rows left out of training: 3 whose tags do not match their tokens"),
    "a tag of no scheme": Mistake(
        data([*TAGGED, {"tokens": ["x"], "tags": ["X-Y"]}], **TAG), r"\S+mine\.jsonl: tag 'X-Y': must be O, or B-.*"),
    "windows that share too much": Mistake(
        data(TAGGED, task__kind="tag", task__overlap=30, data__validation=""), r"task\.overlap=30: windows of data\.seq_len=32 tokens .*"),
    "entity scores of tags that mark none": Mistake(
        data([row | {"tags": ["D", *["N"] * (len(row["tokens"]) - 1)]} for row in TAGGED], data__validation="", train__metric="f1", **TAG),
        r"train\.metric='f1': tags without entities \(B-, I-\) have accuracy, macro_f1, micro_f1, loss"),
    "class scores of tags that mark entities": Mistake(
        data(TAGGED, data__validation="", train__metric="macro_f1", **TAG),
        r"train\.metric='macro_f1': tags with entities \(B-, I-\) have f1, precision, recall, accuracy, loss"),
    # answers
    "questions without a context": Mistake(
        flags(task__kind="qa"), r"\S+train\.jsonl has no column 'question'; it has 'text', 'label'"),
    "answers that are never in their context": Mistake(
        data(LOST, **QA), r"\S+mine\.jsonl: no row can be trained on: 4 whose answer is not in their context"),
    "answers that are not always in their context": Mistake(
        data(ASKED + LOST[:1], data__validation="", **QA, **STOP), STOPPED,
        r"warning: \S+mine\.jsonl: 1 of 5 rows left out of training: 1 whose answer is not in their context"),
    "answers of another form": Mistake(
        data([row | {"answers": "mat"} for row in ASKED], **QA), r"\S+mine\.jsonl row 1: answers must be SQuAD's: .*"),
    # settings
    "no kind of task": Mistake(flags(task__kind=""), r"task\.kind is empty: must be one of classify, multilabel, regress, tag, qa"),
    "a kind that there is not": Mistake(flags(task__kind="clasify"), r"task\.kind='clasify': .*; did you mean classify\?"),
    "a metric of another task": Mistake(flags(train__metric="spearman"), r"train\.metric='spearman': task\.kind=classify has accuracy, .*"),
    "a body for a text": Mistake(flags(task__body="lstm"), r"task\.body='lstm' stands between tokens and tags: .*"),
    "pooling of tags": Mistake(flags(task__kind="tag", task__pooling="mean"), r"task\.pooling='mean': task\.kind=tag looks at every .*"),
    "class weights of numbers": Mistake(
        flags(task__kind="regress", task__class_weights="balanced"), r"task\.class_weights='balanced': task\.kind=regress has no classes"),
    "general text": Mistake(lambda lab, here: fields(data__general=lab.general), r"data\.general='\S+' is for masked language modelling.*"),
    "rows longer than the positions": Mistake(flags(data__seq_len=64), r"data\.seq_len=64: \S+ has only 40 positions"),
    "more new layers than there are": Mistake(flags(**STOP), STOPPED),
    "vectors of an encoder that moves": Mistake(flags(task__cache="on"), r"task\.cache=on needs a frozen encoder: give train\.freeze=.*"),
    "freezing what is not there": Mistake(
        flags(train__freeze="('enconder',)"), r"train\.freeze='enconder' matches no parameter; .*"),
    "freezing everything": Mistake(flags(train__freeze="('.*',)"), r"train\.freeze=.* freezes every parameter: nothing is left to train"),
    "equal seeds": Mistake(flags(train__seeds="(1,1)"), r"train\.seeds=\(1, 1\): must be different numbers, .*"),
    "seeds of pre-training": Mistake(
        lambda lab, here: fields(data__train=lab.corpus, task__kind="", train__seeds="(1,2)"),
        r"train\.seeds=\(1, 2\) is for downstream tasks .*; use seed=\.\.\. here", config="configs/dapt.py"),
    "a workdir that is a file": Mistake(workdir_is_a_file, r"cannot write the (workdir|frozen encoder's vectors).* \S*taken\S*: .*"),
    # checkpoints
    "a pickle as model": Mistake(checkpoint(pickled), r"\S+ has its weights in a pickle only, which is never opened .*"),
    "another architecture": Mistake(
        checkpoint(lambda model: reconfigure(model, model_type="gpt2")), r"\S+: model_type 'gpt2' is not supported .*"),
    "a damaged model": Mistake(checkpoint(cut), r"\S+: model\.safetensors is damaged .*"),
    "weights of another model": Mistake(
        checkpoint(lambda model: reconfigure(model, num_hidden_layers=3)), r"\S+: the weights are not those of the bert .*missing.*"),
    "a model that is not there": Mistake(flags(model__path="./no/such/model"), r"no directory \./no/such/model.*"),
    # evaluation
    "evaluation as another task": Mistake(
        tuned(task__kind="tag"), r"task\.kind=tag: \S+tuned is a model for classify", config=EVALUATE),
    "evaluation of a task with a masked LM": Mistake(
        flags(), r"task\.kind=classify: \S+model has no head of a task: fine-tune it first .*", config=EVALUATE),
    "evaluation of general text with a task's head": Mistake(
        lambda lab, here: tuned(data__general=lab.general)(lab, here),
        r"data\.general='\S+' is for masked language modelling: \S+tuned is a model for classify", config=EVALUATE),
    "evaluation of nothing": Mistake(tuned(data__validation=""), r"nothing to evaluate on: .*", config=EVALUATE),
    "evaluation without the texts": Mistake(
        tuned(data__text="body"), r"\S+dev\.jsonl has no column 'body'; it has 'text', 'label' \(set data\.text\)", config=EVALUATE),
    "evaluation of rows that are too long": Mistake(
        tuned(data__seq_len=64), r"data\.seq_len=64: \S+tuned has only 40 positions", config=EVALUATE),
    "evaluation of a damaged model": Mistake(checkpoint(cut, "tuned"), r"\S+: model\.safetensors is damaged .*", config=EVALUATE),
    "evaluation of a model whose labels are not its own": Mistake(
        checkpoint(lambda model: reconfigure(model, id2label={"0": "a", "1": "b", "2": "c"}), "tuned"),
        r"\S+: .*classifier\.(weight|bias).*", config=EVALUATE),
}


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    import torch
    import transformers

    config = transformers.BertConfig.from_pretrained(lab.model, id2label={0: "animal", 1: "thing"}, label2id={"animal": 0, "thing": 1})
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(lab.root / "tuned")
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
    assert re.fullmatch(f"jaxplm: (?:{mistake.line})\n", done.err), done.err
    assert re.search(f"^{mistake.told}", done.out, re.M), done.out
