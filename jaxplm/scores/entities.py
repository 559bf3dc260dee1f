"""Entities in sequences of tags, and their scores: an entity is right if type, start and end are.

There are two readings of a sequence that breaks its scheme, and so two scores:

- `f1` (also `precision`, `recall` and the table of types) reads it by the rules of conlleval, the script of CoNLL-2000 to 2003.
  An I that follows no entity of its type starts one. seqeval does the same by default, and so do the figures in most papers.
- `strict_f1` takes only entities that are complete in their scheme, as seqeval does with mode="strict". An I without its B is
  no entity.

On sequences that obey their scheme both are equal. A model that is not yet trained to the end writes many that do not.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxplm.data.labelled.tag_schemes import split_tag, transitions
from jaxplm.errors import UserError
from jaxplm.scores.classification import ClassScore

Tags = Sequence[Sequence[str]]


class Entity(NamedTuple):
    """Tokens `start` to `stop` - 1 of one sequence."""

    kind: str  # '' where the tags name no type
    start: int
    stop: int


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sequence, in order, by the rules of conlleval.

    The rules hold for IOB1, IOB2 and BIOES, and for sequences that obey none; see `jaxplm.data.labelled.tag_schemes.transitions`.

    Raises:
      UserError: a tag of no scheme.
    """
    found: list[Entity] = []
    start, kind_before = 0, ""
    for place, (_, kind, starts, ends) in enumerate(transitions([*tags, "O"])):
        if ends:
            found.append(Entity(kind_before, start, place))
        if starts:
            start = place
        kind_before = kind
    return found


def strict_entities(tags: Sequence[str], scheme: str) -> list[Entity]:
    """Return the entities of one sequence, in order: what the scheme allows and nothing else, as seqeval's strict mode.

    In IOB2 an entity is a B and every I of its type that follows; an I that belongs to no B is none. In BIOES it is an S, or a
    B, any I of its type and an E of its type; what has no end is none.

    Args:
      tags: of one sequence.
      scheme: 'IOB2' or 'BIOES'. IOB1 has to be converted first, see `jaxplm.data.labelled.tag_schemes.to_iob2`.

    Raises:
      UserError: a tag that the scheme does not have.
      ValueError: another scheme.
    """
    if scheme not in _READERS:
        raise ValueError(f"scheme {scheme!r}: must be one of {', '.join(_READERS)}")
    for tag in tags:
        if tag[:1] in ("E", "S") and scheme != "BIOES":
            raise UserError(f"tag {tag!r}: {scheme} has only O, B- and I-")
    return _READERS[scheme]([split_tag(tag) for tag in tags])


def entity_scores(gold: Tags, predicted: Tags, scheme: str) -> dict[str, float]:
    """Return {'f1', 'precision', 'recall', 'strict_f1'} over all entities (micro), and 'accuracy' of the tags.

    Precision without a predicted entity, recall without a gold one and F1 without either are 0, as in the CoNLL script:
    a model that finds nothing has no good score. Without a token all five are NaN.

    Args:
      gold: a sequence of tags for each text.
      predicted: as many sequences, each as long.
      scheme: of both, for `strict_f1`; see `strict_entities`.

    Raises:
      UserError: a tag that the scheme does not have.
      ValueError: lengths that differ.
    """
    _check(gold, predicted)
    tokens = sum(map(len, gold))
    if not tokens:
        return dict.fromkeys(("f1", "precision", "recall", "strict_f1", "accuracy"), float("nan"))
    hits, in_gold, in_predicted = (each.total() for each in _counts(gold, predicted, entities))
    strict = [each.total() for each in _counts(gold, predicted, partial(strict_entities, scheme=scheme))]
    right = sum(a == b for one, other in zip(gold, predicted, strict=True) for a, b in zip(one, other, strict=True))
    return {
        "f1": _f1(hits, in_gold, in_predicted),
        "precision": hits / in_predicted if in_predicted else 0.0,
        "recall": hits / in_gold if in_gold else 0.0,
        "strict_f1": _f1(*strict),
        "accuracy": right / tokens,
    }


def entity_counts(gold: Tags, predicted: Tags, scheme: str = "") -> np.ndarray:
    """Return [n, 3] int64, the entities of each text: right ones, gold ones, predicted ones.

    Args:
      gold, predicted: as in `entity_scores`.
      scheme: "" reads entities by the rules of conlleval; else strictly, see `strict_entities`.
    """
    _check(gold, predicted)
    read = partial(strict_entities, scheme=scheme) if scheme else entities
    counts = [_counts([one], [other], read) for one, other in zip(gold, predicted, strict=True)]
    return np.array([[part.total() for part in row] for row in counts], np.int64).reshape(-1, 3)


def per_type(gold: Tags, predicted: Tags) -> list[ClassScore]:
    """Return precision, recall and F1 by conlleval's rules of each type of entity in gold or predicted, by name.

    NaN for a share of nothing, such as the precision of a type that was never predicted.

    Args:
      gold, predicted: as in `entity_scores`.
    """
    _check(gold, predicted)
    hits, in_gold, in_predicted = _counts(gold, predicted, entities)
    return [ClassScore(kind, _share(hits[kind], in_predicted[kind]), _share(hits[kind], in_gold[kind]),
                       _share(2 * hits[kind], in_gold[kind] + in_predicted[kind]), in_gold[kind])
            for kind in sorted({*in_gold, *in_predicted})]


def _check(gold: Tags, predicted: Tags) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sequences and {len(predicted)} predicted ones")
    for number, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sequence {number}: {len(one)} gold tags and {len(other)} predicted ones")


def _counts(gold: Tags, predicted: Tags, read: Callable[[Sequence[str]], list[Entity]]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Count entities by type: right ones, gold ones, predicted ones."""
    hits, in_gold, in_predicted = Counter[str](), Counter[str](), Counter[str]()
    for one, other in zip(gold, predicted, strict=True):
        expected, found = read(one), read(other)
        hits.update(entity.kind for entity in set(expected) & set(found))
        in_gold.update(entity.kind for entity in expected)
        in_predicted.update(entity.kind for entity in found)
    return hits, in_gold, in_predicted


def _f1(hits: int, in_gold: int, in_predicted: int) -> float:
    return 2 * hits / (in_gold + in_predicted) if in_gold + in_predicted else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


# ---------------------------------------------------------------- strict readings of a sequence, as (prefix, type) of each tag


def _run(split: Sequence[tuple[str, str]], start: int) -> int:
    """Return where the tags I of the type at `start` that follow it end."""
    stop = start + 1
    while stop < len(split) and split[stop] == ("I", split[start][1]):
        stop += 1
    return stop


def _iob2(split: Sequence[tuple[str, str]]) -> list[Entity]:
    return [Entity(kind, place, _run(split, place)) for place, (prefix, kind) in enumerate(split) if prefix == "B"]


def _bioes(split: Sequence[tuple[str, str]]) -> list[Entity]:
    found: list[Entity] = []
    for place, (prefix, kind) in enumerate(split):
        if prefix == "S":
            found.append(Entity(kind, place, place + 1))
        elif prefix == "B":
            stop = _run(split, place)
            if stop < len(split) and split[stop] == ("E", kind):
                found.append(Entity(kind, place, stop + 1))
    return found


_READERS: dict[str, Callable[[Sequence[tuple[str, str]]], list[Entity]]] = {"IOB2": _iob2, "BIOES": _bioes}
