"""Answers and their scores against the published rules of SQuAD, KorQuAD and BERT, written out slowly."""

import collections
import math
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.scores.answers import Window, best_span, null_score
from jaxplm.scores.squad import answer_scores, normalize_korquad, normalize_squad, qa_scores

WORDS = ["the", "The", "a", "an", "cat", "Cats", "theme", "U.S.", "'99", "《한국》", "‘서울’", "서울,", "(서)", "-", "\n"]
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


def slow_squad(text: str) -> str:
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def slow_korquad(text: str) -> str:
    for mark in ("'", '"', "《", "》", "<", ">", "〈", "〉", "(", ")", "‘", "’"):
        text = text.replace(mark, " ")
    return " ".join("".join(letter for letter in text.lower() if letter not in set(string.punctuation)).split())


def slow_f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    same = sum((collections.Counter(found) & collections.Counter(gold)).values())
    if not same:
        return 0.0
    precision, recall = same / len(found), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def slow_scores(predicted: str, answers: list[str], rules: str) -> tuple[float, float]:
    normalize = slow_squad if rules == "squad" else slow_korquad
    units = str.split if rules == "squad" else lambda text: [letter for word in text.split() for letter in word]
    golds = [answer for answer in answers if normalize(answer)] or [""]
    exact = max(float(normalize(predicted) == normalize(gold)) for gold in golds)
    return exact, max(slow_f1(units(normalize(predicted)), units(normalize(gold))) for gold in golds)


@pytest.mark.parametrize("rules", ["squad", "korquad"])
@settings(max_examples=200, deadline=None)
@given(predicted=texts, answers=st.lists(texts, max_size=3))
def test_one_question(rules: str, predicted: str, answers: list[str]) -> None:
    assert answer_scores(predicted, answers, rules) == pytest.approx(slow_scores(predicted, answers, rules), abs=1e-12)


@pytest.mark.slow
@given(st.text(max_size=30))
def test_any_text_is_normalised(text: str) -> None:
    assert normalize_squad(text) == slow_squad(text) and normalize_korquad(text) == slow_korquad(text)


def test_scores_by_example() -> None:
    assert answer_scores("The Cat!", ["cat"]) == (1, 1)
    assert answer_scores("black cat", ["a cat", "black dog sat"]) == pytest.approx((0, 2 / 3))
    assert answer_scores("", []) == (1, 1) and answer_scores("cat", []) == (0, 0) and answer_scores("", ["cat"]) == (0, 0)
    assert answer_scores("《서울》", ["서울"], "korquad") == (1, 1)
    assert answer_scores("서울시", ["서울"], "korquad") == pytest.approx((0, 0.8))  # by characters
    assert answer_scores("서울시", ["서울"], "squad") == (0, 0)


@given(st.dictionaries(st.text(max_size=3), st.tuples(texts, st.lists(texts, max_size=2)), min_size=1, max_size=6))
def test_mean_of_questions(cases: dict[str, tuple[str, list[str]]]) -> None:
    predictions = {name: text for name, (text, _) in cases.items()} | {"other, longer": "?"}
    found = qa_scores(predictions, {name: golds for name, (_, golds) in cases.items()})
    both = np.mean([slow_scores(text, golds, "squad") for text, golds in cases.values()], axis=0)
    assert found == pytest.approx({"exact_match": both[0], "f1": both[1]})


def test_questions_missing_or_none() -> None:
    assert all(math.isnan(value) for value in qa_scores({}, {}).values())
    with refuses("1", "'b'", error=ValueError):
        qa_scores({"a": ""}, {"a": [], "b": []})


@st.composite
def windows(draw):
    """One to three windows with few distinct logits, so that ties are frequent."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 9))
        logits = st.lists(st.integers(-4, 4).map(float), min_size=length, max_size=length)
        low = draw(st.integers(1, length))
        made.append(Window(draw(logits), draw(logits), (low, draw(st.integers(low, length)))))
    return made


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(windows(), st.integers(1, 5))
def test_the_best_span_is_that_of_a_full_search(made: list[Window], max_answer: int) -> None:
    every = [
        (number, first, last, window.start[first] + window.end[last])
        for number, window in enumerate(made)
        for first in range(*window.context)
        for last in range(first, min(first + max_answer, window.context[1]))
    ]
    every.sort(key=lambda span: -span[3])
    assert best_span(made, max_answer) == (every[0] if every else None)
    null = min(window.start[0] + window.end[0] for window in made)
    assert null_score(made) == null
    for threshold in (-2.0, 0.0, 3.0):
        answered = bool(every) and every[0][3] > null + threshold
        assert best_span(made, max_answer, threshold) == (every[0] if answered else None)


def test_a_span_of_float32_logits_of_usual_size() -> None:
    random = np.random.default_rng(0)
    start, end = random.normal(size=(2, 384)).astype(np.float32)
    span = best_span([Window(start, end, (20, 380))], 30)
    full = start[:, None].astype(np.float64) + end[None].astype(np.float64)
    place = np.arange(384)
    allowed = (place[:, None] >= 20) & (place < 380) & (place >= place[:, None]) & (place - place[:, None] < 30)
    assert span is not None and span.score == full[span.first, span.last] == full[allowed].max() and allowed[span.first, span.last]
