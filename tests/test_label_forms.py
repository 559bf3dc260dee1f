"""One label in several spellings, numbers and columns for names, and marks for labels that are not given."""

import json
import logging
import unicodedata

import numpy as np
import pytest
from messages import assert_line, assert_says, refuses

from jaxplm.config import Config, Data
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_forms import LabelForms, likeness, meaning, without_mark
from jaxplm.data.labelled.reading import read_examples
from jaxplm.recipes.finetune.checks import check_label_names
from jaxplm.recipes.finetune.labelled_sets import read_sets
from jaxplm.tasks.kinds import KINDS

NFC = "긍정"
NFD = unicodedata.normalize("NFD", NFC)


def examples(labels, name="train.csv"):
    n = len(labels)
    return Examples(name, np.arange(n), ["x"] * n, None, None, labels, None, [""] * n)


def sets(tmp_path, kind, train, other, split="validation", **fields):
    """Read two files of labels as a run does."""
    config = Config(recipe="finetune")
    config.task.kind = kind
    for name, labels in (("train", train), (split, other)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{name} {i}", "label": label}) + "\n" for i, label in enumerate(labels)))
        setattr(config.data, name, str(path))
    for name, value in fields.items():
        setattr(config.data, name, value)
    return read_sets(config)


@pytest.mark.parametrize(("train", "other", "as_read"), [
    (["0.0", "1.0"], [1, 0], ["1.0", "0.0"]),
    ([0, 1], ["1.0", "0.00"], ["1", "0"]),
    ([0, 1], ["+1", "-0"], ["1", "0"]),
    ([True, False], ["True", "FALSE"], ["true", "false"]),
    (["True", "False"], [True, False], ["True", "False"]),
    ([NFC, "b"], [NFD, "b"], [NFC, "b"]),
    ([NFD, "b"], [NFC, "b"], [NFD, "b"]),
])  # fmt: skip
def test_spellings_that_mean_the_same(tmp_path, caplog, train, other, as_read):
    found = sets(tmp_path, "classify", train * 3, other)
    assert found.evaluated["validation"].labels == as_read and len(found.labels) == 2
    assert not caplog.records


def test_spellings_within_the_training_set(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "jaxplm"):
        found = sets(tmp_path, "classify", ["1.0", "1", "1", "0", NFD, NFC, NFC], ["1.0", NFD, "0"])
    assert set(found.labels.names) == {"0", "1", NFC} and found.labels.counts.sum() == 7
    assert_line(caplog.text, "train.jsonl", "'1'", "'1.0'", "U+AE0D")
    caplog.clear()
    found = sets(tmp_path, "multilabel", [["1.0", "a"], ["1", "b"], ["b", "1"]], [["1.0"]])
    assert found.labels.names == ("1", "a", "b") and found.evaluated["validation"].labels == [("1",)]


@pytest.mark.parametrize(("one", "other", "said"), [
    ("pos", "Pos", ("'Pos'", "'pos'")), ("pos", "pos\u200b", ("'pos\\u200b'", "U+200B", "'pos'")),
    ("very good", "very\u00a0good", ("U+00A0", "'very good'")), ("1", "01", ("'01'", "'1'")), ("A", "\uff21", ("'\uff21'", "'A'")),
])  # fmt: skip
def test_what_only_looks_alike_is_told(tmp_path, caplog, one, other, said):
    found = sets(tmp_path, "classify", [one, "x"] * 3, [other, "x"])
    assert found.evaluated["validation"].labels == [other, "x"]
    assert_line(caplog.text, "validation.jsonl", "errors", *said)
    caplog.clear()
    sets(tmp_path, "classify", [one, "x", other] * 3, [one, other, "x"])
    assert_line(caplog.text, "train.jsonl", "alike", *said)


def test_labels_that_differ_are_not_merged():
    different = ["1", "01", "1.5", "1.50", "1e0", "true", "yes", "A", "a", "-1", "v1.0", "", "-", "9" * 400]
    assert len(set(map(meaning, different))) == len(different)
    assert likeness("B-PER") == likeness("b_per") and likeness("क्या") != likeness("क")
    forms = LabelForms.of_training(examples(["1.5", "1.50", "2.0"]))
    assert forms.apply(examples(["1.5", "1.50", "2"])).labels == ["1.5", "1.50", "2.0"]


def test_minus_one_is_not_given_where_training_has_no_such_label(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "jaxplm"):
        found = sets(tmp_path, "classify", [0, 1] * 3, [-1, -1, -1], split="test")
    assert found.evaluated["test"].labels == [None] * 3 and found.evaluated["test"].faults == ["missing"] * 3
    assert_line(caplog.text, "test.jsonl", "-1", "3 rows", "not given")
    assert sets(tmp_path, "classify", ["a", "b"], ["a", "-1.0"]).evaluated["validation"].labels == ["a", None]
    assert sets(tmp_path, "multilabel", [["a"], ["b"]], [["-1"], ["a"]]).evaluated["validation"].labels == [None, ("a",)]
    assert sets(tmp_path, "classify", [-1, 0, 1], [-1, 1]).evaluated["validation"].labels == ["-1", "1"]
    with refuses("validation.jsonl", "2 rows", "label"):
        sets(tmp_path, "classify", [0, 1], [-1, -1])
    assert sets(tmp_path, "regress", [0.5, 1], [-1, -1.0], split="test").evaluated["test"].labels == [None, None]
    assert sets(tmp_path, "regress", [0.5, 1], [-1, 2], split="test").evaluated["test"].labels == [-1, 2]
    assert without_mark(examples([-1.0, -1.0]), examples([-1.0])).labels == [-1, -1]


HOT = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("hot", [HOT, [[bool(x) for x in row] for row in HOT], [[int(x) for x in row] for row in HOT],
                                 [f"{a:g}|{b:g}|{c:g}" for a, b, c in HOT], [f"{a} {b} {c}" for a, b, c in HOT]])  # fmt: skip
def test_zeros_and_ones_are_columns_of_classes(tmp_path, caplog, hot):
    with caplog.at_level(logging.INFO, "jaxplm"):
        found = sets(tmp_path, "multilabel", hot * 2, hot[:2], label_names=("sport", "food", "art"))
    assert found.labels.names == ("sport", "food", "art") and found.labels.counts.tolist() == [2, 2, 2]
    assert found.evaluated["validation"].labels == [("food", "art"), ("sport",)]
    assert_line(caplog.text, "3 zeros and ones", "sport, food, art")
    caplog.clear()
    with caplog.at_level(logging.INFO, "jaxplm"):
        found = sets(tmp_path, "multilabel", hot * 2, hot)
    assert found.labels.names == ("0", "1", "2") and found.train.labels[:3] == [("1", "2"), ("0",), ()]
    assert_line(caplog.text, "3 zeros and ones", "data.label_names")


def test_columns_of_classes_with_rows_held_out(tmp_path):
    found = sets(tmp_path, "multilabel", HOT * 8, HOT, split="test")
    assert found.labels.names == ("0", "1", "2") and found.evaluated["test"].labels == [("1", "2"), ("0",), ()]
    assert set(found.evaluated["validation"].labels) <= {("1", "2"), ("0",), ()}


def test_a_column_without_ones_is_a_class(tmp_path):
    found = sets(tmp_path, "multilabel", [[0, 1, 0], [0, 0, 0]], [[1, 0, 0]])
    assert found.labels.names == ("0", "1", "2") and found.labels.counts.tolist() == [0, 1, 0]
    assert np.isfinite(found.labels.balanced_weights()).all()


def test_lists_of_another_length(tmp_path):
    with refuses("validation.jsonl", "row 2", "2", "3 zeros and ones"):
        sets(tmp_path, "multilabel", HOT, [[0, 1, 1], [1, 0]])
    with refuses("data.label_names", "2 names", "3 zeros and ones"):
        sets(tmp_path, "multilabel", HOT, HOT, label_names=("a", "b"))


def test_lists_of_numbers_stay_names(tmp_path):
    found = sets(tmp_path, "multilabel", [[0], [0, 1], [1], []], [[1]])
    assert found.labels.names == ("0", "1") and found.train.labels == [("0",), ("0", "1"), ("1",), ()]


@pytest.mark.parametrize("odd", [[1, 0], [0, 1, None], [0.5, 1, 1], [1, 2], "art"])
def test_a_list_among_zeros_and_ones_that_is_none(tmp_path, odd):
    with refuses("train.jsonl", "row 2", "3 zeros and ones"):
        sets(tmp_path, "multilabel", [HOT[0], odd, *HOT], HOT)
    named = sets(tmp_path, "multilabel", [*HOT, [], None, ["a"]], [*HOT, ["c", "b"]], label_names=("a", "b", "c"))
    assert named.train.labels[3:] == [(), ("a",)] and named.evaluated["validation"].labels[-1] == ("c", "b")


def test_names_of_numbers(tmp_path):
    found = sets(tmp_path, "classify", [1, 0, "1.0", "good"], [0, 1, 2], label_names=("bad", "good"))
    assert found.labels.names == ("bad", "good") and found.train.labels == ["good", "bad", "good", "good"]
    assert found.evaluated["validation"].labels == ["bad", "good", "2"]
    with refuses("data.label_names", "train.jsonl", "2"):
        sets(tmp_path, "classify", [0, 1, 2], [0], label_names=("bad", "good"))
    for kind, names in (("qa", ("a", "b")), ("regress", ("a", "b")), ("classify", ("a", "a")), ("classify", ("a", " "))):
        with refuses("data.label_names"):
            check_label_names(names, KINDS[kind])


def test_forms_of_a_model():
    forms = LabelForms.of_model(("food", "sport"))
    hot = read_hot([[0, 1], [1, 1]])
    assert forms.apply(hot).labels == [("sport",), ("food", "sport")]
    assert forms.apply(read_hot([[0, 1], [1]])).labels == [("0", "1"), ("1",)]
    assert LabelForms.of_model(("0.0", "1.0")).apply(examples(["1", "-1"])).labels == ["1.0", None]
    assert LabelForms.of_model(("bad", "good")).apply(examples(["1"])).labels == ["1"]
    named = LabelForms.of_model(("bad", "good"), ("good", "bad"))
    assert named.apply(examples(["1", "good"])).labels == ["bad", "good"]
    with refuses("data.label_names", "goood", "bad, good"):
        LabelForms.of_model(("bad", "good"), ("goood", "bad"))
    tags = LabelForms.of_model(("B-" + NFC, "O")).apply(examples([["B-" + NFD, "O"], None]))
    assert tags.labels == [["B-" + NFC, "O"], None]


def read_hot(labels):
    return examples([KINDS["multilabel"].read({"text": "x", "label": label}, Data(), "", 0).label for label in labels])


@pytest.mark.parametrize(("value", "impossible"), [
    (True, True), ("True", True), ("true", True), (1, True), ("1", True), (1.0, True), ("yes", True), ("T", True),
    (False, False), ("False", False), ("false", False), (0, False), ("0", False), ("no", False), (" FALSE ", False),
    (None, None), ("", None), (float("nan"), None),
])  # fmt: skip
def test_spellings_of_true_and_false(tmp_path, value, impossible):
    answers = [{"text": "cat", "answer_start": 4}]
    row = {"question": "q", "context": "The cat sat.", "answers": answers, "is_impossible": value}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    [label] = read_examples(str(tmp_path / "a.jsonl"), KINDS["qa"], Data()).labels
    assert label.texts == (() if impossible else ("cat",))


def test_neither_true_nor_false(tmp_path):
    for value in ("maybe", 2, [False], {}):
        (tmp_path / "a.jsonl").write_text(json.dumps({"question": "q", "context": "c", "answers": [], "is_impossible": value}))
        with refuses("a.jsonl", "row 1", "'is_impossible'", "true"):
            read_examples(str(tmp_path / "a.jsonl"), KINDS["qa"], Data())


@pytest.mark.parametrize("column", ["guid", "id"])
def test_names_of_questions(tmp_path, column):
    questions = [{"question": "q", "answers": [{"text": "cat", "answer_start": 4}], column: name} for name in ("klue_0", 7, None)]
    questions.append({"question": "q", "answers": []})
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "The cat sat.", "qas": questions}]}]}))
    assert read_examples(str(path), KINDS["qa"], Data()).ids == ["klue_0", "7", "2", "3"]
    rows = [{"context": "The cat sat.", **question} for question in questions]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_examples(str(tmp_path / "b.jsonl"), KINDS["qa"], Data()).ids == ["klue_0", "7", "2", "3"]


def test_nan_is_an_empty_cell(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"text": NaN, "label": "x", "b": "c"}\n{"text": "nan", "label": NaN, "b": NaN}\n')
    found = read_examples(str(tmp_path / "a.jsonl"), KINDS["classify"], Data(text_pair="b"))
    assert (found.texts, found.pairs, found.labels, found.faults) == (["", "nan"], ["c", ""], ["x", None], ["", "missing"])
    found = read_examples(str(tmp_path / "a.jsonl"), KINDS["classify"], Data())
    assert found.faults == ["empty", "missing"]


@pytest.mark.parametrize("start", [float("inf"), float("nan"), 10**400, "x", None, [], {}, True and 10**5000 // 10**4600])
def test_answers_at_impossible_places(tmp_path, start):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"question": "q", "context": "c", "answers": [{"text": "c", "answer_start": start}]}))
    with refuses("a.jsonl", "row 1", "answer_start") as caught:
        read_examples(str(tmp_path / "a.jsonl"), KINDS["qa"], Data())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("label", [10**400, -(10**400), "9" * 400, [1], {"a": 1}, float("inf")])
def test_numbers_out_of_range(tmp_path, label):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", "label": label}))
    with refuses("a.jsonl", "row 1", "number"):
        read_examples(str(tmp_path / "a.jsonl"), KINDS["regress"], Data())


def test_labels_of_hundreds_of_digits(tmp_path, caplog):
    long = "9" * 400
    found = sets(tmp_path, "classify", [10**400 - 1, 0, "x\n" * 500], [long, 0, 10**399])
    assert found.evaluated["validation"].labels[:2] == [long, "0"]
    assert max(map(len, caplog.messages)) < 400
    assert_says(caplog.text, "validation.jsonl")
