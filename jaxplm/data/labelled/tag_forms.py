"""How data sets write tags that mark entities: B-PER, B_PER, PER-B, BIOES, BILOU or BMES, with O or another tag outside.

All of them are read as the tags of `jaxplm.data.labelled.tag_schemes`: O, and B-, I-, E- or S- with a type.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_SEPARATORS = "-_:/|.=+~"
# Letters of the schemes, and the one that stands for each here: BILOU has L(ast) and U(nit), BMES and BMEWO M(iddle) and W(hole).
_LETTERS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I", "W": "S"}
_ALPHABETS = tuple(map(frozenset, ("BIES", "BILU", "BMES", "BMEW", "BIEU", "BIEW", "BILS")))
_OUTSIDE = frozenset(("o", "-", "_", "0", "*", ".", "x", "other", "others", "none", "null", "out", "outside", "na", "n/a", "<o>", "[o]"))
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True)
class TagForm:
    """One way to write tags that mark entities.

    Attributes:
      separator: between letter and type.
      letter_last: the letter follows the type, as in PER-B.
      outside: the tag of tokens outside every entity.
    """

    separator: str = "-"
    letter_last: bool = False
    outside: str = "O"

    def read(self, tag: str) -> str | None:
        """Return a tag as O, or as a letter of BIES with or without -TYPE; None where it is not of this form."""
        if tag == self.outside:
            return "O"
        letter, kind = self.split(tag)
        return _LETTERS[letter] + (f"-{kind}" if kind else "") if letter else None

    def split(self, tag: str) -> tuple[str, str]:
        """Return the letter as the data set has it, in upper case, and the type; ('', '') where the tag is not of this form."""
        if len(tag) == 1 and tag in _LETTERS:
            return tag, ""
        if self.letter_last:
            kind, _, letter = tag.rpartition(self.separator)
        else:
            letter, _, kind = tag.partition(self.separator)
        return (letter.upper(), kind) if kind and letter.upper() in _LETTERS else ("", "")

    def example(self) -> str:
        """Return how the first tag of an entity is written."""
        return f"PER{self.separator}B" if self.letter_last else f"B{self.separator}PER"


STANDARD = TagForm()


def find_form(tags: Collection[str]) -> TagForm | None:
    """Return how these different tags of a data set mark entities; None where they mark none.

    Every tag has a letter of one scheme, but for one that stands for "outside". There may be none outside. Then a form
    other than B-TYPE is taken only where B and another letter occur, because names of classes may look like it.
    """
    for letter_last in (False, True):
        for separator in _SEPARATORS:
            form = TagForm(separator, letter_last)
            letters = {tag: form.split(tag)[0] for tag in tags}
            rest = [tag for tag, letter in letters.items() if not letter]
            found = {letter for letter in letters.values() if letter}
            if not found or not any(found <= alphabet for alphabet in _ALPHABETS) or len(rest) > 1:
                continue
            if rest and rest[0].lower() in _OUTSIDE and (found & {"B", "I"} or rest == ["O"]):
                return TagForm(separator, letter_last, rest[0])
            plain_prefix = (separator, letter_last) == ("-", False)
            if not rest and (("B" in found and len(found) > 1) or (plain_prefix and found & {"B", "I"} and _has_types(tags))):
                return form
    return None


def _has_types(tags: Iterable[str]) -> bool:
    return all(len(tag) > 1 for tag in tags)


def means_entities(tags: Collection[str]) -> bool:
    """Return whether the standard tags are among these: then another tag that marks no entity is a mistake."""
    return "O" in tags and any(tag.startswith(("B-", "I-", "S-", "E-")) or tag in ("B", "I") for tag in tags)


def doubt(tags: Collection[str]) -> str:
    """Return why tags that are scored as plain tags may have been meant to mark entities; '' where nothing says so."""
    if all(map(_NUMBER.fullmatch, tags)):
        return "they are numbers, and tags of entities have names such as B-PER, which data.label_names can give"
    for letter_last in (False, True):
        for separator in _SEPARATORS:
            form = TagForm(separator, letter_last)
            alike = [tag for tag in tags if len(tag) > 1 and form.split(tag)[0]]
            if 2 * len(alike) >= len(tags) and any(form.split(tag)[0] == "B" for tag in alike):
                other = next((tag for tag in sorted(tags) if tag not in alike), "")
                return f"{min(alike)!r} looks like the tag of an entity, " + (f"{other!r} does not" if other else "but no tag is I or O")
    if "O" in tags:
        named = next(tag for tag in sorted(tags) if tag != "O") if len(tags) > 1 else ""
        return f"there is O, but {named!r} has no B- or I-" if named else ""
    return ""
