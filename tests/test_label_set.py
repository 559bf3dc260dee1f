"""Labels in a stable order, counted, and told where the sets differ."""

import logging

import numpy as np
from messages import assert_says, refuses

from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import UNKNOWN, UNLABELLED, LabelSet, warn_unknown
from jaxplm.tasks.kinds import KINDS


def label_set(train, *others, kind="classify"):
    return KINDS[kind].label_set(train, others)


def values(kind, labels, given):
    """What is to be learned of labels of whole texts."""
    encoded = Encoded(np.zeros(len(given), np.int32), np.zeros(len(given), np.int8), np.arange(len(given) + 1), np.arange(len(given)))
    return KINDS[kind].targets(examples(given), encoded, labels).values


def examples(labels, name="train.csv", scheme=""):
    n = len(labels)
    return Examples(name, np.arange(n), ["x"] * n, None, None, labels, None, [""] * n, scheme=scheme)


def test_order_and_counts():
    labels = label_set(examples(["b", "a", "10", "9", "b", None, "-1", "nan", "inf", "1e1"]))
    assert labels.names == ("-1", "9", "10", "1e1", "a", "b", "inf", "nan")  # numbers by their value, then names
    assert labels.counts.tolist() == [1, 1, 1, 1, 1, 2, 1, 1] and labels.total == 9
    assert KINDS["classify"].num_outputs(labels) == len(labels) == 8
    assert labels.ids(["b", None, "c"]).tolist() == [5, UNLABELLED, UNKNOWN] and labels.ids(["a", "A"]).tolist() == [4, UNKNOWN]


def test_balanced_weights_make_classes_count_alike():
    labels = label_set(examples(["a"] * 6 + ["b"] * 2 + ["c"]))
    weights = labels.balanced_weights()
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights * labels.counts, [3, 3, 3], rtol=1e-6)
    with refuses("task.class_weights=balanced"):
        LabelSet(("a", "b"), np.zeros(2, np.int64)).balanced_weights()


def test_multilabel():
    labels = label_set(examples([("b", "a"), (), ("b",), None]), kind="multilabel")
    assert (labels.names, labels.counts.tolist(), labels.total) == (("a", "b"), [1, 2], 3)
    encoded = values("multilabel", labels, [("b",), (), None, ("a", "new", "b")])
    assert encoded.dtype == np.float32 and encoded.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1]]
    with refuses("none"):
        label_set(examples([(), ()]), kind="multilabel")


def test_regress_and_qa_have_no_names():
    for kind, outputs in (("regress", 1), ("qa", 2)):
        labels = label_set(examples([1.0]), kind=kind)
        assert labels.names == KINDS[kind].labels_of_model(("LABEL_0",)).names == () and KINDS[kind].num_outputs(labels) == outputs
    found = values("regress", LabelSet(), [0.5, None])
    assert found.dtype == np.float32 and found.tolist() == [0.5, 0.0]


def test_tags():
    labels = label_set(examples([["O", "B-X"], ["I-X", "O", "O"], None, []], scheme="IOB2"), kind="tag")
    assert (labels.names, labels.counts.tolist(), labels.total, labels.scheme) == (("B-X", "I-X", "O"), [1, 1, 3], 5, "IOB2")
    assert labels.ids(["O", "B-Y", "I-X"]).tolist() == [2, UNKNOWN, 1]


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
    tag = KINDS["tag"]
    labels = tag.labels_of_model(("O", "B-X", "I-X"))
    assert (labels.names, labels.scheme) == (("O", "B-X", "I-X"), "IOB2")
    assert tag.labels_of_model(("O", "S-X", "B-X")).scheme == "BIOES"
    assert tag.labels_of_model(("NN", "IN")).scheme == ""
    assert [metric.name for metric in tag.metrics_for(labels)][0] == "f1"
    assert [metric.name for metric in tag.metrics_for(tag.labels_of_model(("NN", "IN")))][0] == "accuracy"
