"""What was selected, and how it is written: `selected/texts.jsonl`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Selection:
    """m texts of the corpus.

    Attributes:
      numbers: [m] int64 ascending, of the texts in the corpus, from 0.
      values: {name: [m]} of what is written beside each text: "similarity" and "task_row", or "weight".
      neighbours, similarities: knn: [q, k], the numbers of each task text's neighbours and their cosines, the highest first.
      chance: knn: cosines of pairs of a task text and a corpus text that were drawn by chance.
      weights: dsir: the log importance weights of all texts that might have been chosen.
    """

    numbers: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    neighbours: np.ndarray | None = None
    similarities: np.ndarray | None = None
    chance: np.ndarray | None = None
    weights: np.ndarray | None = None

    def line(self, i: int, text: str, source: str) -> str:
        """Return the line of the i-th text."""
        values = {name: _plain(array[i]) for name, array in self.values.items()}
        return json.dumps({"text": text, "index": int(self.numbers[i]), "source": source} | values, ensure_ascii=False) + "\n"


def _plain(value: np.generic) -> int | float:
    return int(value) if isinstance(value, np.integer) else round(float(value), 6)
