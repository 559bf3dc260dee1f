"""Entities and tag schemes against seqeval in both modes and a reading of the CoNLL script's rules."""

import math
import warnings

import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme
from conlleval import conlleval
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from messages import refuses

from jaxplm.data.labelled.tag_schemes import SCHEMES, detect_scheme, split_tag, to_iob2
from jaxplm.errors import UserError
from jaxplm.scores.entities import Entity, entities, entity_scores, per_type, strict_entities

SEQEVAL = {"IOB2": seqeval.scheme.IOB2, "BIOES": seqeval.scheme.IOBES}


def any_tags(scheme: str):
    """Sequences of a scheme's tags that need not obey it."""
    prefixes = "BIES" if scheme == "BIOES" else "BI"
    return st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("X", "Y"))]), max_size=10)


def pairs(scheme: str):
    """A few texts, each with two sequences of one length."""
    return st.lists(any_tags(scheme).flatmap(lambda gold: st.tuples(st.just(gold), st.permutations(gold))), min_size=1, max_size=5)


segments = st.lists(st.tuples(st.sampled_from(["", "X", "Y"]), st.integers(1, 4)), max_size=6)


def written(parts: list[tuple[str, int]], scheme: str) -> list[str]:
    """Tags of consecutive stretches, each an entity or (type '') outside."""
    tags: list[str] = []
    before = ""
    for kind, length in parts:
        if not kind:
            tags += ["O"] * length
        elif scheme == "BIOES":
            tags += [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
        else:
            tags += ["B-" + kind if scheme == "IOB2" or before == kind else "I-" + kind, *[f"I-{kind}"] * (length - 1)]
        before = kind
    return tags


def stretches(parts: list[tuple[str, int]]) -> list[Entity]:
    ends = np.cumsum([length for _, length in parts])
    return [Entity(kind, int(end) - length, int(end)) for (kind, length), end in zip(parts, ends, strict=True) if kind]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(parts=segments)
def test_what_obeys_its_scheme_is_read_as_written(scheme: str, parts) -> None:
    assert entities(written(parts, scheme)) == stretches(parts)
    if scheme in SEQEVAL:
        assert strict_entities(written(parts, scheme), scheme) == stretches(parts)
    assert to_iob2(written(parts, scheme), scheme) == written(parts, "IOB2")


@given(st.lists(segments, min_size=1, max_size=4))
def test_the_scheme_is_found(texts) -> None:
    for scheme in SCHEMES:
        sequences = [written(parts, scheme) for parts in texts]
        found = detect_scheme(sequences)
        # Some texts are the same in two schemes; either is then right.
        assert found == scheme or [written(parts, found) for parts in texts] == sequences


def test_schemes_by_example() -> None:
    assert detect_scheme([["I-A", "I-A", "B-A", "O"]]) == "IOB1"
    assert detect_scheme([["B-A", "I-A", "B-A", "O"]]) == "IOB2"
    assert detect_scheme([["O", "S-A"]]) == "BIOES"
    assert detect_scheme([["O"], []]) == detect_scheme([]) == "IOB2"
    assert detect_scheme([["B-A", "O", "B-A", "O", "I-A"]]) == "IOB2"  # one slip
    assert to_iob2(["O", "I-A", "I-B", "B-B", "I-B"], "IOB1") == ["O", "B-A", "B-B", "B-B", "I-B"]
    assert to_iob2(["B", "I", "O", "I"], "IOB2") == ["B", "I", "O", "B"]
    assert to_iob2(["E-A", "I-A", "O", "S-A", "E-A"], "BIOES") == ["B-A", "B-A", "O", "B-A", "B-A"]


@pytest.mark.parametrize("tag", ["", "X-PER", "NN", "B_PER", "b-PER", "B-", "O-PER"])
def test_tags_of_no_scheme(tag: str) -> None:
    with refuses("O", "B-", "I-", "E-", "S-"):
        split_tag(tag)
    with pytest.raises(UserError):
        detect_scheme([["O", tag]])


def test_tags_of_another_scheme() -> None:
    with refuses("'S-A'", "IOB2"):
        to_iob2(["S-A"], "IOB2")
    with refuses("'E-A'", "IOB2"):
        strict_entities(["E-A"], "IOB2")
    with pytest.raises(ValueError, match="IOB1"):
        strict_entities([], "IOB1")
    with pytest.raises(ValueError, match="IOB3"):
        to_iob2([], "IOB3")


def by_the_script(tags: list[str]) -> list[Entity]:
    """The rules of the script of CoNLL-2000/2003 as published with the task: when a chunk ends and when one starts."""
    found, start = [], None
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        ends = before + prefix in {"BB", "BO", "BS", "IB", "IO", "IS", "EE", "EI", "EO", "EB", "ES"} or before == "S"
        starts = prefix in "BS" or before + prefix in {"OI", "OE", "EE", "EI", "SI", "SE"}
        if before != "O" and (ends or kind != kind_before):
            assert start is not None
            found.append(Entity(kind_before, start, place))
        if prefix != "O" and (starts or kind != kind_before):
            start = place
        before, kind_before = prefix, kind
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_sequence_by_the_rules_of_conll(scheme: str, data) -> None:
    tags = data.draw(any_tags(scheme))
    found = by_the_script(tags)
    assert entities(tags) == found
    assert found == [(kind, first, last + 1) for kind, first, last in seqeval.metrics.sequence_labeling.get_entities(tags)]
    repaired = to_iob2(tags, scheme)
    assert strict_entities(repaired, "IOB2") == found and detect_scheme([repaired]) == "IOB2" and to_iob2(repaired, "IOB2") == repaired


@pytest.mark.parametrize("scheme", SEQEVAL)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_strict_is_seqeval_s(scheme: str, data) -> None:
    tags = data.draw(any_tags(scheme))
    theirs = [(entity.tag, entity.start, entity.end) for entity in seqeval.scheme.Tokens(tags, SEQEVAL[scheme]).entities] if tags else []
    assert strict_entities(tags, scheme) == theirs


def test_strict_by_example() -> None:
    assert strict_entities(["I-X", "B-X", "I-Y", "I-X"], "IOB2") == [("X", 1, 2)]
    assert strict_entities(["B-X", "I-X", "O", "E-X", "B-X", "E-Y", "B-X", "E-X", "S-Y"], "BIOES") == [("X", 6, 8), ("Y", 8, 9)]


def test_what_breaks_its_scheme_by_example() -> None:
    """Without a B, conlleval counts the entity and the strict mode does not."""
    tags = ["I-X", "I-X", "O", "B-Y", "I-X"]
    assert entities(tags) == [("X", 0, 2), ("Y", 3, 4), ("X", 4, 5)] and strict_entities(tags, "IOB2") == [("Y", 3, 4)]
    found = entity_scores([["B-X", "I-X", "O"]], [["I-X", "I-X", "O"]], "IOB2")
    assert (found["f1"], found["precision"], found["recall"], found["strict_f1"]) == (1, 1, 1, 0)
    assert entities(["B-X", "I-X", "B-X", "E-X"]) == [("X", 0, 2), ("X", 2, 4)]
    assert strict_entities(["B-X", "I-X", "B-X", "E-X"], "BIOES") == [("X", 2, 4)]


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_scores_are_conlleval_s_and_seqeval_s(scheme: str, data) -> None:
    gold, predicted = (list(each) for each in zip(*data.draw(pairs(scheme)), strict=True))
    assume(any(gold))
    found = entity_scores(gold, predicted, "BIOES" if scheme == "BIOES" else "IOB2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "f1": seqeval.metrics.f1_score(gold, predicted),
            "precision": seqeval.metrics.precision_score(gold, predicted),
            "recall": seqeval.metrics.recall_score(gold, predicted),
            "strict_f1": seqeval.metrics.f1_score(gold, predicted, mode="strict", scheme=SEQEVAL.get(scheme, SEQEVAL["IOB2"])),
            "accuracy": seqeval.metrics.accuracy_score(gold, predicted),
        }
        rows = per_type(gold, predicted)
        table = seqeval.metrics.classification_report(gold, predicted, output_dict=True) if rows else {}
    assert found == pytest.approx(expected, abs=1e-12)
    by_the_rules = conlleval(gold, predicted)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(by_the_rules, abs=1e-12)
    for row in rows:
        theirs = table[row.name]
        np.testing.assert_allclose(np.nan_to_num(row[1:]), [theirs[name] for name in ("precision", "recall", "f1-score", "support")])


def test_scores_at_the_edges() -> None:
    assert entity_scores([["O", "O"]], [["O", "O"]], "IOB2") == {"f1": 0, "precision": 0, "recall": 0, "strict_f1": 0, "accuracy": 1}
    assert entity_scores([["B-X"]], [["B-X"]], "IOB2") == {"f1": 1, "precision": 1, "recall": 1, "strict_f1": 1, "accuracy": 1}
    assert all(math.isnan(value) for value in entity_scores([], [], "IOB2").values())
    assert all(math.isnan(value) for value in entity_scores([[]], [[]], "IOB2").values())
    assert per_type([["O"]], [["O"]]) == []
    (row,) = per_type([["B", "I"]], [["O", "O"]])
    assert row.name == "" and math.isnan(row.precision) and (row.recall, row.f1, row.support) == (0, 0, 1)
    # The same stretch in two texts is two entities.
    assert entity_scores([["B-X"], ["B-X"]], [["B-X"], ["O"]], "IOB2")["recall"] == 0.5
    with refuses("sequence 1", "1", "2", error=ValueError):
        entity_scores([["O"], ["O"]], [["O"], ["O", "O"]], "IOB2")
    with refuses("1", "0", error=ValueError):
        entity_scores([["O"]], [], "IOB2")
