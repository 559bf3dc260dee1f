"""What the report and the model card say about a run: a short header, and sections in the order in which they are shown."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture that is already in the workdir."""

    caption: str
    path: str  # relative to the workdir: "plots/confusion.png"
    legend: str = ""  # Markdown below the picture


@dataclasses.dataclass(frozen=True)
class Section:
    """One heading with what stands below it: figures, then pairs as a table of two columns, then Markdown."""

    title: str
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {"training text": "builtin:pydocs, 12.3 M tokens"}
    markdown: str = ""
    figures: Sequence[Figure] = ()  # shown in the report alone: the export has no pictures
    in_card: bool = True  # False: shown in the report alone

    @property
    def is_empty(self) -> bool:
        return not (self.values or self.markdown or self.figures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What a job says about itself. The loop adds its own settings and the cost, and makes `Facts` of it."""

    title: str  # "Domain-adaptive pre-training"
    model: Mapping[str, str]
    data: Mapping[str, str]
    settings: Mapping[str, str]
    metric: str = ""  # the score that picks the exported step and that the headline gives; empty: masked language modelling's
    sections: Sequence[Section] = ()  # further ones, shown before model, data, settings and cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Collects what the report and the model card say about a run."""

    title: str
    command: str  # that made the run
    exported_step: int  # whose weights were exported
    metric: str = ""  # as in `JobFacts`
    headline: str = ""  # one sentence with the result; empty: it is made from the scores
    sections: Sequence[Section] = ()
