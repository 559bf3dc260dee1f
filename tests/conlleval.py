"""The scores of conlleval, the script of the CoNLL-2000 to 2003 shared tasks, written from its published rules.

It reads gold and predicted tags side by side, as the script does, and keeps no list of entities: a reference that shares nothing with
`jaxplm.scores.entities`. The rules for E and S are those with which seqeval extends the script to BIOES.
"""

from collections.abc import Sequence
from typing import NamedTuple

# Pairs of prefixes, one tag and the next, between which an entity is over, and at the second of which one begins, whatever the types.
_ENDS = {"BB", "BS", "BO", "IB", "IS", "IO", *(before + after for before in "ES" for after in "BIESO")}
_STARTS = {*(before + after for before in "BIESO" for after in "BS"), *(before + after for before in "ESO" for after in "IE")}


class Scores(NamedTuple):
    """Shares, 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


def _split(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def _ends(before: tuple[str, str], tag: tuple[str, str]) -> bool:
    return before[0] + tag[0] in _ENDS or (before[0] != "O" and before[1] != tag[1])


def _starts(before: tuple[str, str], tag: tuple[str, str]) -> bool:
    return before[0] + tag[0] in _STARTS or (tag[0] != "O" and before[1] != tag[1])


def conlleval(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Return precision, recall and F1 of entities over all sequences."""
    outside = ("O", "")
    correct = in_gold = in_predicted = 0
    inside_correct = False
    gold_before, predicted_before = outside, outside
    for one, other in zip(gold, predicted, strict=True):
        for gold_tag, predicted_tag in zip([*one, "O"], [*other, "O"], strict=True):
            now, guess = _split(gold_tag), _split(predicted_tag)
            if inside_correct:
                over, guess_over = _ends(gold_before, now), _ends(predicted_before, guess)
                if over and guess_over and gold_before[1] == predicted_before[1]:
                    inside_correct, correct = False, correct + 1
                elif over != guess_over or now[1] != guess[1]:
                    inside_correct = False
            begins, guess_begins = _starts(gold_before, now), _starts(predicted_before, guess)
            inside_correct |= begins and guess_begins and now[1] == guess[1]
            in_gold, in_predicted = in_gold + begins, in_predicted + guess_begins
            gold_before, predicted_before = now, guess
    precision = correct / in_predicted if in_predicted else 0.0
    recall = correct / in_gold if in_gold else 0.0
    return Scores(precision, recall, 2 * precision * recall / (precision + recall) if correct else 0.0)
