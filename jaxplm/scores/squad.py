"""Scores of extractive question answering, by the rules of SQuAD 1.1 and 2.0 and of KorQuAD 1.0."""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# KorQuAD replaces quotes and brackets by spaces, and removes other punctuation.
_KOREAN_MARKS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def normalize_squad(text: str) -> str:
    """Return the text in lower case with no punctuation (ASCII), no articles (a, an, the), single spaces (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize_korquad(text: str) -> str:
    """Return the text in lower case with spaces for quotes and brackets and no other punctuation (ASCII) (Lim et al. 2019)."""
    return " ".join(text.translate(_KOREAN_MARKS).lower().translate(_PUNCTUATION).split())


def _words(text: str) -> list[str]:
    return text.split()


def _characters(text: str) -> list[str]:
    return list(text.replace(" ", ""))


# name: (normalisation of a text, the units that F1 counts)
RULES: dict[str, tuple[Callable[[str], str], Callable[[str], list[str]]]] = {
    "squad": (normalize_squad, _words),
    "korquad": (normalize_korquad, _characters),
}


def answer_scores(predicted: str, answers: Sequence[str], rules: str = "squad") -> tuple[float, float]:
    """Return (exact match, F1) of one question, each the best over its answers, which need not be the same one.

    Answers that are empty once normalised are dropped. A question without further answers has none: both scores are 1 if the
    prediction is empty as well, else 0 (SQuAD 2.0).

    Args:
      predicted: a text; "" for no answer.
      answers: the gold ones.
      rules: 'squad' or 'korquad'.
    """
    normalize, units = RULES[rules]
    found = normalize(predicted)
    golds = [gold for gold in map(normalize, answers) if gold] or [""]
    return float(found in golds), max(_f1(units(found), units(gold)) for gold in golds)


def qa_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], rules: str = "squad") -> dict[str, float]:
    """Return {'exact_match', 'f1'}: means over all questions, between 0 and 1; NaN without a question.

    Args:
      predictions: {question's id: text}, "" for no answer; ids that are no question's are ignored.
      references: {question's id: its gold answers}, none for a question that has no answer.
      rules: 'squad' or 'korquad'.

    Raises:
      ValueError: a question without a prediction.
    """
    if missing := [name for name in references if name not in predictions]:
        raise ValueError(f"{len(missing)} questions have no prediction; the first is {missing[0]!r}")
    if not references:
        return {"exact_match": float("nan"), "f1": float("nan")}
    pairs = [answer_scores(predictions[name], answers, rules) for name, answers in references.items()]
    return {"exact_match": sum(exact for exact, _ in pairs) / len(pairs), "f1": sum(f1 for _, f1 in pairs) / len(pairs)}


def _f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    common = (Counter(found) & Counter(gold)).total()
    return 2 * common / (len(found) + len(gold))
