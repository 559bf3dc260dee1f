"""What the tags of a set are: plain tags or entities, how those are written, and in which scheme."""

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from jaxplm.data.labelled.examples import Examples
from jaxplm.data.labelled.tag_forms import STANDARD, TagForm, doubt, find_form, means_entities
from jaxplm.data.labelled.tag_schemes import detect_scheme, split_tag, to_iob2
from jaxplm.errors import UserError

log = logging.getLogger("jaxplm")

Labels = list[Any]  # a list of tags for each row, None where it has none


def settle_tags(examples: Examples) -> tuple[Examples, str]:
    """Return a set with its tags as a model learns them, and words for the log that say what they are.

    Tags that mark entities are written as O, B-, I-, E- and S-. IOB1 becomes IOB2, and so does BIOES where a token of the
    model covers several characters. What `Examples.reading` says holds; what it leaves open is decided by this set.

    Raises:
      UserError: a tag that does not go with the others.
    """
    reading = examples.reading
    names = {tag for tags in examples.labels if tags for tag in tags}
    if not names:
        return examples, ""
    if reading.scheme == "" or (reading.scheme is None and not _are_entities(names)):
        if not reading.decided:
            reading = replace(reading, scheme="", space=_tag_of_spaces(examples))
            if not examples.reading.scheme_given and (reason := doubt(names)):
                log.warning("%s: the tags are scored as plain tags, not as entities: %s (data.tag_scheme=plain says that this is meant)",
                            examples.describe, reason)
        return replace(examples, reading=reading), "tags are plain, such as parts of speech"

    form = _form_of(names, reading.form, examples.describe)
    reading = replace(reading, form=reading.form or form)
    try:
        labels: Labels = [tags and [_read(tag, form) for tag in tags] for tags in examples.labels]
        own = detect_scheme(tags for tags in labels if tags)
        scheme = own if reading.scheme is None else reading.scheme
        if not reading.scheme_given and (own != "IOB2" or reading.scheme == "BIOES"):
            scheme = own  # E, S and entities that start with I are seen in a small set too; whether IOB1 has them is not
        result = "IOB2" if scheme == "IOB1" or (scheme == "BIOES" and examples.characters) else scheme
        if result != scheme or (own == "BIOES" and scheme != "BIOES"):
            labels = [tags and to_iob2(tags, scheme) for tags in labels]
    except UserError as error:
        raise UserError(f"{examples.describe}: {error} (data.tag_scheme=plain: the tags mark no entities)") from None
    if reading.decided and own == "IOB1" and reading.scheme != "IOB1" and result != scheme:
        log.info("%s: IOB1 tags, converted to IOB2", examples.describe)
    written = "" if form == STANDARD else f", written as {form.example()} and {form.outside}"
    about = f"tags mark entities ({scheme}{'' if result == scheme else ', converted to ' + result}{written})"
    return replace(examples, labels=labels, scheme=result, reading=replace(reading, scheme=reading.scheme or scheme)), about


def _are_entities(names: set[str]) -> bool:
    return find_form(names) is not None or means_entities(names)


def _form_of(names: set[str], known: TagForm | None, describe: str) -> TagForm:
    """Return how the tags of a set are written: as in the training set where all of them fit, else as the set alone shows."""
    if known and all(known.read(name) or STANDARD.read(name) for name in names):
        return known
    own = find_form(names)
    if own and known:
        log.info("%s: tags are written as %s and %s here, as %s and %s in the training set", describe, own.example(), own.outside,
                 known.example(), known.outside)
    return own or known or STANDARD


def _read(tag: str, form: TagForm) -> str:
    read = form.read(tag) or STANDARD.read(tag)
    if read is None:
        split_tag(tag)
        raise UserError(f"tag {tag!r}: its letter is of no scheme that the other tags have")
    return read


def _tag_of_spaces(examples: Examples) -> str | None:
    """Return the most frequent tag of tokens that are white space; None where there are none."""
    assert examples.tokens is not None
    counts = Counter(tag for tokens, tags in zip(examples.tokens, examples.labels, strict=True) if tags
                     for token, tag in zip(tokens, tags, strict=True) if not token.strip())
    return counts.most_common(1)[0][0] if counts else None
