"""Schemes of tags that mark entities, IOB1, IOB2 and BIOES: which one a data set uses, and conversion to IOB2."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

from jaxplm.data.labelled.tag_forms import find_form
from jaxplm.errors import UserError

SCHEMES = ("IOB1", "IOB2", "BIOES")


def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into prefix and type: ('B', 'PER') for B-PER, ('O', '') for O, ('B', '') for a bare B.

    Raises:
      UserError: the tag is neither O nor one of B, I, E, S with or without -TYPE.
    """
    if tag == "O":
        return "O", ""
    if tag[:1] in ("B", "I", "E", "S") and (len(tag) == 1 or (tag[1] == "-" and len(tag) > 2)):
        return tag[:1], tag[2:]
    raise UserError(f"tag {tag!r}: must be O, or B-, I-, E- or S- and a type, as in B-PER")


def transitions(tags: Sequence[str]) -> Iterator[tuple[str, str, bool, bool]]:
    """Yield where entities start and end by the rules of the CoNLL-2000/2003 script (Tjong Kim Sang & Buchholz 2000).

    The rules hold for any sequence, also one that breaks its scheme.

    An entity starts at every B and S; at every I or E after O, after the end of an entity (E, S) or after another type.

    Yields:
      For each tag: prefix, type, whether an entity starts here, whether the entity of the tag before is over.
    """
    before, kind_before = "O", ""
    for tag in tags:
        prefix, kind = split_tag(tag)
        fresh = prefix in "BS" or before in "OES" or kind != kind_before
        yield prefix, kind, prefix != "O" and fresh, before != "O" and (prefix == "O" or fresh)
        before, kind_before = prefix, kind


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of tag sequences: 'IOB1', 'IOB2' or 'BIOES'.

    Any E or S means BIOES. Otherwise the starts of entities that only one of the other two schemes writes in this way are
    counted: I at the start is IOB1's, B that does not follow an entity of its type is IOB2's. The more frequent one wins, so
    that a few mistakes of an annotator do not decide. Without any such start the scheme is IOB2.

    Raises:
      UserError: a tag of no scheme (see `split_tag`).
    """
    only_iob1 = only_iob2 = 0
    bioes = False
    for tags in sequences:
        kind_before = ""
        inside = False
        for prefix, kind, starts, _ in transitions(tags):
            bioes |= prefix in "ES"
            if starts:
                only_iob1 += prefix == "I"
                only_iob2 += prefix == "B" and not (inside and kind == kind_before)
            inside, kind_before = prefix != "O", kind
    if bioes:
        return "BIOES"
    return "IOB1" if only_iob1 > only_iob2 else "IOB2"


def to_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the tags of one sequence in IOB2: B at the start of every entity, I inside.

    A sequence that breaks its own scheme, such as an I after O in IOB2, is read as the CoNLL script reads it, so the
    result is always IOB2.

    Args:
      scheme: what the tags are in, 'IOB1', 'IOB2' or 'BIOES'.

    Raises:
      UserError: a tag that the scheme does not have.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r}: must be one of {', '.join(SCHEMES)}")
    result = []
    for tag, (prefix, kind, starts, _) in zip(tags, transitions(tags), strict=True):
        if prefix in "ES" and scheme != "BIOES":
            raise UserError(f"tag {tag!r}: {scheme} has only O, B- and I-")
        result.append("O" if prefix == "O" else ("B" if starts else "I") + (f"-{kind}" if kind else ""))
    return result


def rewritten(tags: Sequence[str], scheme: str) -> list[str]:
    """Return the tags of one sequence, read by the rules of `transitions`, in 'IOB2' or 'BIOES'.

    Raises:
      UserError: a tag of no scheme (see `split_tag`).
    """
    read = list(transitions([*tags, "O"]))
    result = []
    for (prefix, kind, starts, _), (_, _, _, ends) in itertools.pairwise(read):
        letter = prefix
        if prefix != "O":
            letter = "B" if starts else "I"
            if scheme == "BIOES" and ends:
                letter = "S" if starts else "E"
        result.append(letter + (f"-{kind}" if kind else ""))
    return result


def scheme_of_names(names: Collection[str]) -> str:
    """Return the scheme of a trained model's tags, 'IOB2' or 'BIOES'; '' where they mark no entities."""
    form = find_form(names)
    if form is None or form.separator != "-" or form.letter_last:
        return ""
    return "BIOES" if any(form.split(name)[0] in tuple("ES") for name in names) else "IOB2"
