"""The exports of the runs of tasks: stock transformers loads them without a warning and predicts the same."""

import csv
import json
import warnings
from typing import Any

import checkpoints
import numpy as np
import pytest
import transformers
from checkpoints import torch
from commands import Lab
from forked import Outcome
from helpers import same
from task_runs import NOUNS, Runs, predictions, train_all

import jaxplm
from jaxplm import hf
from jaxplm.tasks.kinds import KINDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    return Runs(lab)


@pytest.fixture(scope="module")
def trained(lab: Lab) -> dict[str, Outcome]:
    return train_all(lab)


def stock(runs: Runs, name: str):
    """Return the model and tokenizer as stock transformers loads them, without a warning."""
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
    found = hf.load_task_model(str(export), KINDS)
    assert same(found.params["encoder"], hf.load(str(runs.lab.model)).params["encoder"])
    assert (found.head.pooling, found.head.layers, found.head.hf_native) == ("mean", "mix", False)
    with checkpoints.listening() as heard:
        _, told = transformers.AutoModel.from_pretrained(export, output_loading_info=True)
    assert heard == [] and not any(told.values())
    assert {path.name for path in (runs.workdir("extraction") / "vectors").iterdir()} == {
        f"{split}.{ending}" for split in ("train", "validation", "test") for ending in ("npy", "json")}
