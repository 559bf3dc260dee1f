"""Labels in a stable order, counted, and told where the sets differ."""

import logging

import numpy as np
from messages import assert_says, refuses

from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import UNKNOWN, UNLABELLED, label_set, labels_of_checkpoint, warn_unknown


def examples(labels, kind="classify", name="train.csv", scheme=""):
    n = len(labels)
    return Examples(kind, name, np.arange(n), ["x"] * n, None, None, labels, None, [""] * n, scheme=scheme)


def test_order_and_counts():
    labels = label_set(examples(["b", "a", "10", "9", "b", None, "-1", "nan", "inf", "1e1"]))
    assert labels.names == ("-1", "9", "10", "1e1", "a", "b", "inf", "nan")  # numbers by their value, then names
    assert labels.counts.tolist() == [1, 1, 1, 1, 1, 2, 1, 1] and labels.total == 9
    assert labels.id2label[1] == "9" and labels.outputs == 8
    assert labels.encode(["b", None, "c"]).tolist() == [5, UNLABELLED, UNKNOWN]
    assert labels.index("a") == 4 and labels.index("A") == UNKNOWN


def test_balanced_weights_make_classes_count_alike():
    labels = label_set(examples(["a"] * 6 + ["b"] * 2 + ["c"]))
    weights = labels.balanced_weights()
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights * labels.counts, [3, 3, 3], rtol=1e-6)
    with refuses("task.class_weights=balanced"):
        labels_of_checkpoint("classify", {0: "a", 1: "b"}).balanced_weights()


def test_multilabel():
    labels = label_set(examples([("b", "a"), (), ("b",), None], "multilabel"))
    assert (labels.names, labels.counts.tolist(), labels.total) == (("a", "b"), [1, 2], 3)
    encoded = labels.encode([("b",), (), None, ("a", "new", "b")])
    assert encoded.dtype == np.float32 and encoded.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1]]
    with refuses("none"):
        label_set(examples([(), ()], "multilabel"))


def test_regress_and_qa_have_no_names():
    assert label_set(examples([1.0], "regress")).encode([0.5, None]).tolist() == [0.5, 0.0]
    assert [label_set(examples([1.0], kind)).outputs for kind in ("regress", "qa")] == [1, 2]
    assert label_set(examples([1.0], "regress")).id2label == {0: "LABEL_0"}
    assert labels_of_checkpoint("qa", {0: "LABEL_0", 1: "LABEL_1"}).names == ()


def test_tags():
    labels = label_set(examples([["O", "B-X"], ["I-X", "O", "O"], None, []], "tag", scheme="IOB2"))
    assert (labels.names, labels.counts.tolist(), labels.total, labels.scheme) == (("B-X", "I-X", "O"), [1, 1, 3], 5, "IOB2")
    assert labels.encode([["O", "B-Y"], None, [], ["I-X"]]).tolist() == [2, UNKNOWN, 1]


def test_labels_of_one_set_alone_are_told(caplog):
    train = examples(["a", "b", "lost"])
    with caplog.at_level(logging.WARNING, "jaxplm"):
        labels = label_set(train, examples(["a", "new", "new", None, "b", "lost"], name="dev.csv"), examples(["a"], name="test.csv"),
                           examples([None], name="plain.csv"))
    assert labels.names == ("a", "b", "lost")
    unknown, absent = caplog.messages
    assert_says(unknown, "dev.csv", "2 rows", "labels", "errors", "new")
    assert_says(absent, "test.csv", "labels", "b, lost")
    caplog.clear()
    warn_unknown(labels, examples(["a", *map(str, range(12))], name="test.csv"))
    [message] = caplog.messages
    assert_says(message, "test.csv", "12 labels", "errors", "0, 1, 2, 3, 4, 5, 6, 7", "4 more")
    caplog.clear()
    warn_unknown(labels, train)
    assert not caplog.records


def test_one_class():
    with refuses("train.csv", "'a'"):
        label_set(examples(["a", "a", None]))


def test_labels_of_a_checkpoint():
    labels = labels_of_checkpoint("tag", {1: "B-X", 0: "O", 2: "I-X"})
    assert (labels.names, labels.scheme) == (("O", "B-X", "I-X"), "IOB2")
    assert labels_of_checkpoint("tag", {0: "O", 1: "S-X", 2: "B-X"}).scheme == "BIOES"
    assert labels_of_checkpoint("tag", {0: "NN", 1: "IN"}).scheme == ""
    with refuses("0", "1"):
        labels_of_checkpoint("classify", {0: "a", 2: "b"})
