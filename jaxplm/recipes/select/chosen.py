"""What is collected for the report while the selected texts are written: numbers, examples, words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxplm.config import Config
from jaxplm.data.selection.sampling import highest, random_scores
from jaxplm.data.selection.screening import Screened
from jaxplm.data.selection.text_units import split_units
from jaxplm.recipes.select.selection import Selection
from jaxplm.recipes.select.task_texts import TaskTexts

_EXAMPLES = 8


@dataclass(frozen=True)
class Example:
    """A task text with a text that was selected, by their numbers; without a task text where none belongs to it."""

    task: int | None
    corpus: int
    value: float | None  # similarity or log weight


class Chosen:
    """The selection with what the report says of it. `see` takes every text of the corpus in its order.

    Attributes:
      config: of the run.
      screened: what was left out.
      selection: what was selected.
      task: the texts of the task.
      examples: to show.
      texts: {number: text} of the examples.
      words: {"task", "selected", "control": occurrences of each word}; the control are as many texts, taken by chance. It is empty
        where the selection itself was made by chance.
    """

    def __init__(self, config: Config, screened: Screened, selection: Selection, task: TaskTexts) -> None:
        self.config, self.screened, self.selection, self.task = config, screened, selection, task
        self.examples = _examples(selection)
        self.texts: dict[int, str] = {}
        self.words: Mapping[str, Counter[str]] = {name: Counter() for name in ("task", "selected", "control")}
        for text in task.texts:
            self.words["task"].update(split_units(text))
        self._shown = {example.corpus for example in self.examples}
        self._selected = np.zeros(len(screened.kept), bool)
        self._selected[selection.numbers] = True
        self._control = np.zeros(len(screened.kept), bool)
        if config.select.method != "random":
            numbers = np.flatnonzero(screened.kept)
            self._control[numbers[highest(random_scores(config.seed, numbers), len(selection.numbers))]] = True

    def see(self, number: int, text: str) -> None:
        """Take the next text of the corpus."""
        if number in self._shown:
            self.texts[number] = text
        selected, control = self._selected[number], self._control[number]
        if selected or control:
            units = split_units(text)
            if selected:
                self.words["selected"].update(units)
            if control:
                self.words["control"].update(units)

    @property
    def facts(self) -> dict[str, Any]:
        """What index.json says of the selection."""
        config, screened = self.config, self.screened
        select = config.select
        model = {"model": config.model.path, "pooling": config.embed.pooling, "neighbours": select.neighbours} \
            if select.method == "knn" else {"seed": config.seed}
        return {
            "method": select.method, **model, "corpus": config.data.corpus, "task": self.task.describe,
            "texts": len(self.selection.numbers), "task_texts": len(self.task.texts), "corpus_texts": len(screened.kept),
            "available": int(screened.kept.sum()), "duplicates": screened.duplicates, "leaks": screened.leaks,
            "leaks_by_set": screened.leaked, "leak_ngram": select.leak_ngram,
        }


def _examples(selection: Selection) -> list[Example]:
    """Return examples from the best to the worst."""
    if selection.neighbours is not None and selection.similarities is not None:
        nearest = selection.similarities[:, 0]
        return [Example(i, int(selection.neighbours[i, 0]), float(nearest[i])) for i in _spread(nearest)]
    if selection.weights is not None:
        weight = selection.values["weight"]
        return [Example(None, int(selection.numbers[i]), float(weight[i])) for i in _spread(weight)]
    return [Example(None, int(selection.numbers[i]), None) for i in _spread(np.zeros(len(selection.numbers)))]


def _spread(values: np.ndarray) -> list[int]:
    """Return the places of some values from the highest to the lowest, evenly spread over their ranks."""
    order = np.argsort(-values, kind="stable")
    places = np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).astype(int)
    return order[places].tolist()
