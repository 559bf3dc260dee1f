"""From logits to scores and predictions: every kind of task, every kind of label there may be, in the order of the input."""

import math
from typing import Any

import checkpoints
import numpy as np
import pytest
from sklearn import metrics

from jaxplm.config import Task
from jaxplm.data.labelled.encode import EncodedWords
from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.label_values import Answers
from jaxplm.data.labelled.word_map import WordMap
from jaxplm.tasks.kinds import KINDS
from jaxplm.tasks.kinds.kind import EvalSet
from jaxplm.tasks.results import Result

BERT = checkpoints.tokenizer("bert")
L = 16


def examples(texts: list[str], labels: list[Any], *, pairs=None, tokens=None, rows=None, scheme="",
             characters=False) -> Examples:
    n = len(texts)
    ids = [f"q{i % 2}" for i in range(n)]  # ids need not differ
    return Examples("test.jsonl", np.arange(n) if rows is None else np.array(rows), texts, pairs, tokens, labels, ids, [""] * n, 0,
                    characters, scheme)


def label_set(kind: str, given: Examples) -> LabelSet:
    return KINDS[kind].label_set(given, [])


def read(kind: str, given: Examples, labels: LabelSet | None = None, seq_len: int = L, overlap: int = 3, *,
         has_unanswerable: bool = False, **task) -> EvalSet:
    labels = label_set(kind, given) if labels is None else labels
    return EvalSet(KINDS[kind], given, KINDS[kind].encode(given, BERT, seq_len, overlap), labels, Task(**task), has_unanswerable)


def results(eval_set: EvalSet, logits: np.ndarray) -> Result:
    return eval_set.kind.results(eval_set, logits)


def one_hot(ids: list[int], classes: int, sure: float = 5.0) -> np.ndarray:
    """Logits whose largest is where the ids say."""
    return sure * np.eye(classes, dtype=np.float32)[ids]


def column(found: Result, name: str) -> list[Any]:
    return [prediction[name] for prediction in found.predictions]


# ---------------------------------------------------------------- one label


def test_classify():
    labels = LabelSet(("a", "b", "c"), np.ones(3, np.int64), 3)
    # The third row has no label, the fourth one that training never saw.
    given = examples(["the", "fox", "dog", "and", "model"], ["a", "b", None, "new", "c"], rows=[0, 2, 3, 7, 8])
    found = results(read("classify", given, labels), one_hot([0, 2, 1, 1, 2], 3))
    assert column(found, "row") == [0, 2, 3, 7, 8]
    assert column(found, "label") == ["a", "c", "b", "b", "c"]
    shares = found.predictions[0]["scores"]
    assert list(shares) == ["a", "b", "c"] and sum(shares.values()) == pytest.approx(1, abs=2e-6)
    assert shares["a"] == pytest.approx(math.exp(5) / (math.exp(5) + 2), abs=1e-6)
    gold, predicted = ["a", "b", "new", "c"], ["a", "c", "b", "c"]
    assert found.scores == pytest.approx({
        "accuracy": 0.5, "micro_f1": 0.5, "macro_f1": metrics.f1_score(gold, predicted, average="macro"),
        "mcc": metrics.matthews_corrcoef(gold, predicted)})
    assert found.confusion is not None and found.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert [(one.name, one.support) for one in found.classes] == [("a", 1), ("b", 1), ("c", 1), ("(not in training)", 1)]
    assert found.entities == []


def test_rows_without_any_label_are_predicted_and_not_scored():
    pairs = ["a fox"] * 2
    cases = {
        "classify": (("x", "y"), one_hot([0, 1], 2)),
        "multilabel": (("x", "y"), one_hot([0, 1], 2) - 1),
        "regress": (("score",), np.array([[0.5], [1.5]], np.float32)),
        "tag": (("O", "B-X"), one_hot([0, 0, 0, 1] * 2, 2)),
        "qa": ((), np.zeros((12, 2), np.float32)),
    }
    for kind, (names, logits) in cases.items():
        labels = KINDS[kind].labels_of_model(names)
        given = examples(["the dog", "the fox"], [None, None], pairs=pairs if kind == "qa" else None,
                         tokens=[["the", "dog"], ["the", "fox"]] if kind == "tag" else None)
        eval_set = read(kind, given, labels)
        found = results(eval_set, logits[: len(eval_set.encoded.ids) if KINDS[kind].per_token else 2])
        assert found.scores == {} and found.classes == [] and found.entities == [] and found.confusion is None, kind
        assert column(found, "row") == [0, 1], kind
        assert all("label" in prediction for prediction in found.predictions), kind


def test_large_logits_are_shares_still():
    given = examples(["the", "fox"], ["a", "b"])
    found = results(read("classify", given), np.array([[1e4, -1e4], [0, 0]], np.float32))
    assert found.predictions[0]["scores"] == {"a": 1.0, "b": 0.0} and found.predictions[1]["scores"] == {"a": 0.5, "b": 0.5}


# ---------------------------------------------------------------- any number of labels


def test_multilabel():
    train = examples(["the", "fox"], [("a", "b"), ("c",)])
    given = examples(["the", "fox", "dog", "and"], [("a",), (), None, ("b", "new", "other")])
    logits = np.array([[2, -1, 1], [-1, -2, -1], [1, 1, 1], [-1, 3, -2]], np.float32)
    found = results(read("multilabel", given, label_set("multilabel", train)), logits)
    assert column(found, "label") == [["a", "c"], [], ["a", "b", "c"], ["b"]]
    assert found.predictions[0]["scores"]["a"] == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    # Columns: a b c new other; the third row has no label.
    gold = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]])
    predicted = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    assert found.scores == pytest.approx({
        "accuracy": 1 / 3, "micro_f1": metrics.f1_score(gold, predicted, average="micro"),
        "macro_f1": metrics.f1_score(gold, predicted, average="macro", zero_division=0)})
    assert [(one.name, one.support) for one in found.classes] == [("a", 1), ("b", 1), ("c", 0), ("new", 1), ("other", 1)]
    assert found.confusion is None


# ---------------------------------------------------------------- a number


def test_regress():
    given = examples(["the", "fox", "dog", "and"], [1.0, 2.0, None, 4.0], pairs=["a"] * 4)
    found = results(read("regress", given), np.array([[0.5], [2.25], [9.0], [3.0]], np.float32))
    assert column(found, "label") == [0.5, 2.25, 9.0, 3.0]
    assert found.scores["spearman"] == pytest.approx(1)
    assert found.scores["mse"] == pytest.approx((0.25 + 0.0625 + 1) / 3)
    assert found.scores["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], [0.5, 2.25, 3.0])[0, 1])


def test_a_constant_prediction_has_no_correlation():
    given = examples(["the", "fox"], [1.0, 2.0])
    found = results(read("regress", given), np.ones((2, 1), np.float32))
    assert math.isnan(found.scores["spearman"]) and found.scores["mse"] == pytest.approx(0.5)


# ---------------------------------------------------------------- tags


def words_of(eval_set: EvalSet) -> WordMap:
    assert isinstance(eval_set.encoded, EncodedWords)
    return eval_set.encoded.words


def perfect(eval_set: EvalSet) -> np.ndarray:
    """Logits of a model that knows every tag where it is predicted, and says nonsense everywhere else."""
    names, words = eval_set.labels.names, words_of(eval_set)
    ids = np.random.default_rng(0).integers(0, len(names), len(eval_set.encoded.ids))
    flat = [tag for tags, tokens in zip(eval_set.examples.labels, eval_set.examples.tokens or [], strict=True)
            for tag in (tags or ["O"] * len(tokens))]
    for token, tag in reversed(list(zip(words.token.tolist(), flat, strict=True))):
        if token >= 0 and tag in names:  # of several words the first has the say
            ids[token] = names.index(tag)
    return one_hot(ids.tolist(), len(names))


def tagged(sentences: list[list[str]], labels: list[Any], scheme: str, **options) -> Examples:
    return examples([" ".join(words) for words in sentences], labels, tokens=sentences, scheme=scheme, **options)


LONG = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"] * 6


def test_tags_over_windows():
    tags = (["O", "B-A", "I-A", "O", "B-B", "O", "B-A", "I-A"] * 6)
    given = tagged([LONG, ["the", "dog"], ["a", "fox"]], [tags, ["O", "B-B"], None], "IOB2")
    eval_set = read("tag", given)
    assert len(eval_set.encoded) > 5, "the first sentence needs several windows"
    logits = perfect(eval_set)
    found = results(eval_set, logits)
    assert column(found, "label")[:2] == [tags, ["O", "B-B"]]
    assert [len(label) for label in column(found, "label")] == [48, 2, 2] == [len(scores) for scores in column(found, "scores")]
    assert found.scores == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "strict_f1": 1.0, "accuracy": 1.0}
    assert [(one.name, one.support) for one in found.entities] == [("A", 12), ("B", 7)]
    assert found.classes == [] and found.confusion is None
    # One tag of the long sentence less: an entity is lost, and another one is found in its place.
    logits[words_of(eval_set).token[2]] = one_hot([eval_set.labels.names.index("O")], len(eval_set.labels.names))[0]
    found = results(eval_set, logits)
    assert found.scores["f1"] == pytest.approx(18 / 19) and found.scores["accuracy"] == pytest.approx(49 / 50)


def test_tags_without_entities():
    given = tagged([["the", "dog", "jumps"], ["a", "fox"]], [["DET", "N", "V"], ["DET", "N"]], "")
    labels = label_set("tag", given)
    assert labels.names == ("DET", "N", "V")
    test = tagged([["the", "dog", "jumps"], ["a", "fox"], ["the"]], [["DET", "N", "N"], ["DET", "X"], None], "")
    eval_set = read("tag", test, labels)
    logits = perfect(eval_set)
    found = results(eval_set, logits)
    assert found.entities == [] and found.confusion is not None and found.confusion.shape == (4, 3)
    assert found.confusion.sum() == 5 and found.confusion[3].sum() == 1
    assert found.scores["accuracy"] == pytest.approx(4 / 5)
    assert set(found.scores) == {"accuracy", "micro_f1", "macro_f1", "mcc"}
    assert [one.name for one in found.classes] == ["DET", "N", "V", "(not in training)"]


@pytest.mark.parametrize("scheme", ["IOB2", ""])
def test_a_word_of_no_token(scheme):
    """A zero-width space has no token in BERT: its tag is O, and it is not certain of anything, but there."""
    names = ("B-X", "I-X", "O") if scheme else ("A", "B")
    given = tagged([["the", "\u200b", "fox"]], [[names[0], names[0] if not scheme else names[1], names[1]]], scheme)
    eval_set = read("tag", given, LabelSet(names, np.ones(len(names), np.int64), 3, scheme))
    found = results(eval_set, perfect(eval_set))
    assert found.predictions[0]["label"] == [names[0], "O", names[1]] and found.predictions[0]["scores"][1] == 1.0
    assert found.scores["accuracy"] == pytest.approx(2 / 3), "what cannot be predicted counts as an error"


def test_characters():
    """Korean characters, spaces among them; 아버지가 is one token of the model and takes the tags of four characters."""
    text = "아버지가 방에 q"
    tags = ["B-P", "I-P", "I-P", "I-P", "O", "B-L", "I-L", "O", "O"]
    given = examples([text], [tags], tokens=[list(text)], scheme="IOB2", characters=True)
    eval_set = read("tag", given)
    found = results(eval_set, perfect(eval_set))
    assert found.predictions[0]["label"] == tags
    assert found.scores["f1"] == 1.0


@pytest.mark.parametrize("names", [("B", "I"), ("B-X", "E"), ("B-X",)])
def test_characters_with_tags_of_no_entities(names):
    """B and I without O, as word spacing has them; B-X continues as I-X although no character of the data has that tag."""
    text = "아버지가 방에"
    tags = [names[0]] + [names[-1]] * (len(text) - 1)
    given = examples([text], [tags], tokens=[list(text)], characters=True)
    eval_set = read("tag", given)
    assert eval_set.labels.scheme == ""
    found = results(eval_set, perfect(eval_set))
    assert len(found.predictions[0]["label"]) == len(text)
    assert 0 < found.scores["accuracy"] <= 1


def test_tags_of_a_model_of_another_scheme():
    """BIOES rows for a model of IOB2 are converted before they come here."""
    train = tagged([["the", "fox"]], [["O", "B-X"]], "IOB2")
    test = tagged([["the", "quick", "fox"]], [["O", "B-X", "E-X"]], "BIOES").in_scheme("IOB2")
    labels = LabelSet(("B-X", "I-X", "O"), np.ones(3, np.int64), 3, label_set("tag", train).scheme)
    eval_set = read("tag", test, labels)
    found = results(eval_set, perfect(eval_set))
    assert found.scores["f1"] == 1.0 and found.predictions[0]["label"] == ["O", "B-X", "I-X"]


# ---------------------------------------------------------------- answers


CONTEXT = " ".join(LONG)
QUESTION = "the fox"


def answered(contexts: list[str], labels: list[Any]) -> Examples:
    return examples([QUESTION] * len(contexts), labels, pairs=contexts)


def answer(context: str, text: str, nth: int = 0) -> Answers:
    at = -1
    for _ in range(nth + 1):
        at = context.index(text, at + 1)
    return Answers((text,), ((at, at + len(text)),))


def pointing(eval_set: EvalSet, height: float = 5.0) -> np.ndarray:
    """Logits that point at the units' own answers, and at [CLS] of the windows without one."""
    encoded = eval_set.encoded
    targets = eval_set.kind.targets(eval_set.examples, encoded, eval_set.labels)
    logits = np.zeros((len(encoded.ids), 2), np.float32)
    for unit, (first, last) in enumerate(targets.values.tolist()):
        logits[encoded.offsets[unit] + first, 0] = logits[encoded.offsets[unit] + last, 1] = height if first else 2 * height
    return logits


def test_answers_in_windows():
    labels = [answer(CONTEXT, "quick brown", 4), answer("a fox and a dog", "dog")]
    eval_set = read("qa", answered([CONTEXT, "a fox and a dog"], labels), seq_len=20, overlap=6)
    assert len(eval_set.encoded) > 4
    found = results(eval_set, pointing(eval_set))
    assert column(found, "label") == ["quick brown", "dog"]
    assert column(found, "start") == [labels[0].spans[0][0], 12]
    assert column(found, "id") == ["q0", "q1"] and column(found, "row") == [0, 1]
    assert column(found, "scores") == [10.0, 10.0]
    assert found.scores == {"exact_match": 1.0, "f1": 1.0}


def test_no_answer_only_where_it_may_lack():
    context = "quick fox and a dog"
    given = answered([context, context, context], [Answers((), ()), answer(context, "dog"), None])
    for has_unanswerable, expected, exact in ((True, "", 1.0), (False, "quick", 0.5)):
        eval_set = read("qa", given, has_unanswerable=has_unanswerable)
        logits = pointing(eval_set)  # rows without an answer point at [CLS]
        found = results(eval_set, logits)
        assert column(found, "label")[:2] == [expected, "dog"]
        if has_unanswerable:
            assert found.predictions[0] == {"row": 0, "id": "q0", "label": "", "start": -1, "scores": None}
        assert found.scores["exact_match"] == exact, "two of the three rows are scored"
    assert len(found.predictions) == 3


def test_one_sure_window_is_enough():
    """The windows without the answer say that there is none; the least sure of them is what the span is compared with."""
    eval_set = read("qa", answered([CONTEXT], [answer(CONTEXT, "quick brown", 4)]), seq_len=20, overlap=6, has_unanswerable=True)
    logits = pointing(eval_set)
    assert results(eval_set, logits).predictions[0]["label"] == "quick brown"


def test_an_answer_has_so_many_tokens_at_most():
    context = "the quick brown fox"
    eval_set = read("qa", answered([context], [answer(context, "the quick brown")]), max_answer=2)
    found = results(eval_set, pointing(eval_set))
    assert len(found.predictions[0]["label"].split()) <= 2 and found.scores["exact_match"] == 0


def test_several_answers_and_korean_rules():
    context = "영화가 정말 재미있다"
    labels = [Answers(("정말", "영화가 정말"), ((4, 6), (0, 6)))]
    eval_set = read("qa", answered([context], labels), rules="korquad")
    found = results(eval_set, pointing(eval_set))
    assert found.scores == {"exact_match": 1.0, "f1": 1.0}
    found = results(eval_set, np.zeros((len(eval_set.encoded.ids), 2)))
    assert 0 <= found.scores["exact_match"] < 1


def test_a_context_that_is_empty():
    given = answered(["", "a fox"], [None, answer("a fox", "fox")])
    eval_set = read("qa", given)
    found = results(eval_set, pointing(eval_set))
    assert column(found, "label") == ["", "fox"] and found.scores["exact_match"] == 1.0
