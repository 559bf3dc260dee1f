"""Entities in sequences of tags, and their scores: an entity is right if type, start and end are."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxplm.data.labelled.tag_schemes import SCHEMES, split_tag, transitions
from jaxplm.errors import UserError
from jaxplm.scores.classification import ClassScore, class_scores

Tags = Sequence[Sequence[str]]


class Entity(NamedTuple):
    """Tokens `start` to `stop` - 1 of one sequence."""

    kind: str  # '' where the tags name no type
    start: int
    stop: int


def entities(tags: Sequence[str], scheme: str, *, strict: bool = True) -> list[Entity]:
    """The entities of one sequence, in order.

    Strict takes what the scheme allows and nothing else. In IOB2 an entity is a B and every I of its type that follows;
    an I that belongs to no B is none. In BIOES it is an S, or a B, any I of its type and an E of its type; what has no
    end is none. Both are seqeval's strict mode. In IOB1 it is an I, or a B that directly follows an entity of its type,
    and every I of its type that follows; any other B is none, nor what goes on from it.
    Not strict is the reading of the CoNLL-2000/2003 script, which takes any sequence: see
    `jaxplm.data.labelled.tag_schemes.transitions`.

    Raises:
      UserError: a tag that the scheme does not have.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r}: must be one of {', '.join(SCHEMES)}")
    for tag in tags:
        if tag[:1] in ("E", "S") and scheme != "BIOES":
            raise UserError(f"tag {tag!r}: {scheme} has only O, B- and I-")
    if not strict:
        return _lenient(tags)
    return {"IOB1": _strict_iob1, "IOB2": _strict_iob2, "BIOES": _strict_bioes}[scheme](tags)


def entity_scores(gold: Tags, predicted: Tags, scheme: str, *, strict: bool = True) -> dict[str, float]:
    """{'f1', 'precision', 'recall'} over all entities (micro), and 'accuracy' of the tags.

    Precision without a predicted entity, recall without a gold one and F1 without either are 0, as in the CoNLL script:
    a model that finds nothing has no good score. Without a token all four are NaN.

    Args:
      gold: a sequence of tags for each text.
      predicted: as many, each as long.
      scheme: 'IOB1', 'IOB2' or 'BIOES', of both.
      strict: see `entities`.

    Raises:
      UserError: a tag that the scheme does not have.
      ValueError: lengths that differ.
    """
    _check(gold, predicted)
    tokens = sum(map(len, gold))
    if not tokens:
        return dict.fromkeys(("f1", "precision", "recall", "accuracy"), float("nan"))
    hits, in_gold, in_predicted = (each.total() for each in _counts(gold, predicted, scheme, strict))
    right = sum(a == b for one, other in zip(gold, predicted, strict=True) for a, b in zip(one, other, strict=True))
    return {
        "f1": 2 * hits / (in_gold + in_predicted) if in_gold + in_predicted else 0.0,
        "precision": hits / in_predicted if in_predicted else 0.0,
        "recall": hits / in_gold if in_gold else 0.0,
        "accuracy": right / tokens,
    }


def per_type(gold: Tags, predicted: Tags, scheme: str, *, strict: bool = True) -> list[ClassScore]:
    """Precision, recall and F1 of each type of entity in gold or predicted, by name; arguments as in `entity_scores`.

    NaN for a share of nothing, such as the precision of a type that was never predicted.
    """
    _check(gold, predicted)
    counts = _counts(gold, predicted, scheme, strict)
    kinds = sorted(set().union(*counts))
    hits, in_gold, in_predicted = (np.asarray([each[kind] for kind in kinds], np.int64) for each in counts)
    return class_scores(kinds, hits, in_gold, in_predicted)


def _check(gold: Tags, predicted: Tags) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sequences and {len(predicted)} predicted ones")
    for number, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sequence {number}: {len(one)} gold tags and {len(other)} predicted ones")


def _counts(gold: Tags, predicted: Tags, scheme: str, strict: bool) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Entities by type: right, gold, predicted."""
    hits, in_gold, in_predicted = Counter[str](), Counter[str](), Counter[str]()
    for one, other in zip(gold, predicted, strict=True):
        expected, found = entities(one, scheme, strict=strict), entities(other, scheme, strict=strict)
        hits.update(entity.kind for entity in set(expected) & set(found))
        in_gold.update(entity.kind for entity in expected)
        in_predicted.update(entity.kind for entity in found)
    return hits, in_gold, in_predicted


def _lenient(tags: Sequence[str]) -> list[Entity]:
    found: list[Entity] = []
    start, open_kind = -1, ""
    for place, (_, kind, starts, ends) in enumerate(transitions(tags)):
        if ends:
            found.append(Entity(open_kind, start, place))
        if starts:
            start, open_kind = place, kind
    if tags and tags[-1] != "O":
        found.append(Entity(open_kind, start, len(tags)))
    return found


def _run(split: Sequence[tuple[str, str]], start: int) -> int:
    """Where the tags I of the type at `start` that follow it end."""
    stop = start + 1
    while stop < len(split) and split[stop] == ("I", split[start][1]):
        stop += 1
    return stop


def _strict_iob2(tags: Sequence[str]) -> list[Entity]:
    split = [split_tag(tag) for tag in tags]
    return [Entity(kind, place, _run(split, place)) for place, (prefix, kind) in enumerate(split) if prefix == "B"]


def _strict_iob1(tags: Sequence[str]) -> list[Entity]:
    split = [split_tag(tag) for tag in tags]
    found: list[Entity] = []
    place = 0
    while place < len(split):
        prefix, kind = split[place]
        stop = place + 1
        if prefix != "O":
            stop = _run(split, place)
            if prefix == "I" or (found and found[-1].kind == kind and found[-1].stop == place):
                found.append(Entity(kind, place, stop))
        place = stop
    return found


def _strict_bioes(tags: Sequence[str]) -> list[Entity]:
    split = [split_tag(tag) for tag in tags]
    found: list[Entity] = []
    for place, (prefix, kind) in enumerate(split):
        if prefix == "S":
            found.append(Entity(kind, place, place + 1))
        elif prefix == "B":
            stop = _run(split, place)
            if stop < len(split) and split[stop] == ("E", kind):
                found.append(Entity(kind, place, stop + 1))
    return found
