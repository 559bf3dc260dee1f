"""How the tagged sentences of a run are read: decided from the training set, the same for all sets, kept in the export."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from jaxplm.data.labelled.tag_forms import TagForm
from jaxplm.data.sources.conll import Layout


class ReadingFields(Protocol):
    """The fields of `jaxplm.config.Data` that overrule what the training set looks like."""

    tokens: str
    tags: str

    @property
    def token_unit(self) -> str: ...

    @property
    def tag_scheme(self) -> str: ...


@dataclass(frozen=True)
class TaggedReading:
    """What tagged sentences are. None stands for what is not decided.

    Attributes:
      characters: the tokens are the characters of a text, spaces among them.
      scheme: of the tags as the data set has them: 'IOB1', 'IOB2' or 'BIOES'; '' for plain tags.
      form: how tags that mark entities are written.
      space: the tag of tokens that are white space, which the model does not see.
      layout: columns of token and tag in CoNLL's format.
      decided: by a training set. Another set then keeps to it and says nothing about itself.
      scheme_given: by a field of the config, which no set overrules.
    """

    characters: bool | None = None
    scheme: str | None = None
    form: TagForm | None = None
    space: str | None = None
    layout: Layout | None = None
    decided: bool = False
    scheme_given: bool = False

    def overruled(self, data: ReadingFields) -> "TaggedReading":
        """Return the same with what the fields of a config say."""
        found = self
        if data.token_unit != "auto":
            found = replace(found, characters=data.token_unit == "characters")
        if data.tag_scheme != "auto":
            found = replace(found, scheme="" if data.tag_scheme == "plain" else data.tag_scheme, scheme_given=True)
        token, tag = column_number(data.tokens), column_number(data.tags)
        if token is not None or tag is not None:
            known = found.layout or Layout()
            found = replace(found, layout=Layout(known.token if token is None else token, known.tag if tag is None else tag, given=True))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the reading for a note beside a model."""
        return {"characters": self.characters, "scheme": self.scheme, "form": self.form and asdict(self.form), "space": self.space,
                "layout": self.layout and self.layout._asdict()}

    @classmethod
    def from_json(cls, note: Any) -> "TaggedReading":
        """Return the reading that `to_json` wrote.

        Raises:
          ValueError: the note is not one of these.
        """
        try:
            form, layout = note["form"], note["layout"]
            return cls(note["characters"], note["scheme"], form and TagForm(**form), note["space"], layout and Layout(**layout),
                       decided=True)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a note about the reading of tags ({error})") from None


def column_number(name: str) -> int | None:
    """Return the place of a column, from 0, that a field names by its number, from 1; None for any other name."""
    return int(name) - 1 if name.isascii() and name.isdigit() and len(name) < 4 and int(name) else None
