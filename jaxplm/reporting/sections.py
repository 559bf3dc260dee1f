"""Sections of a report about labelled tasks: classes with their confusion matrix, types of entities, seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxplm.reporting.confusion_plot import write_confusion
from jaxplm.reporting.facts import Figure, Section
from jaxplm.reporting.tables import class_table, markdown, one_line, seed_table
from jaxplm.scores.classification import ClassScore

CONFUSION = "plots/confusion.png"


def classes_section(classes: Sequence[ClassScore], split: str, figures: Sequence[Figure] = ()) -> Section:
    """Return the section "Classes": precision, recall and F1 of each class.

    Args:
      classes: in the order of the labels.
      split: the set that they were measured on.
      figures: the confusion matrix, see `confusion_figure`.
    """
    return Section(f"Classes ({split})", markdown=markdown(class_table(classes, "class"), "lrrrr"), figures=figures)


def entities_section(types: Sequence[ClassScore], split: str) -> Section:
    """Return the section "Entities": precision, recall and F1 of each type of entity; arguments as in `classes_section`."""
    text = ("`f1` and this table count entities by conlleval's rules, as seqeval does by default. `strict_f1` takes only entities that are"
            " complete in their scheme.")
    return Section(f"Entities ({split})", markdown=f"{markdown(class_table(types, 'entity'), 'lrrrr')}\n\n{text}")


def seeds_section(runs: Mapping[int, Mapping[str, float]]) -> Section:
    """Return the section "Seeds": the scores of each run and their mean ± standard deviation; `runs` as in `seed_table`."""
    table = seed_table(runs)
    return Section("Seeds", markdown=markdown(table, "l" + "r" * (len(table[0]) - 1)))


def confusion_figure(workdir: Path, counts: np.ndarray, classes: Sequence[ClassScore]) -> Figure:
    """Draw the confusion matrix into `workdir` and return the figure, with a legend where the picture has numbers for names.

    Args:
      workdir: the run's directory.
      counts: [C + 1, C] of `jaxplm.scores.classification.confusion`.
      classes: of `jaxplm.scores.classification.per_class`, C or C + 1.
    """
    names = [row.name for row in classes[: counts.shape[1]]]
    numbered = write_confusion(workdir / CONFUSION, counts, names)
    legend = "Classes: " + ", ".join(f"{number} {one_line(name)}" for number, name in enumerate(names, 1)) if numbered else ""
    return Figure("Confusion matrix", CONFUSION, legend)
