"""The pre-training objectives: for each one its rows, its loss, and what the model needs for it. One table for training and evaluation.

`docs/extend/objective.md` says how to add one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxplm.data.corpus.store import TokenStore
from jaxplm.data.mlm.pack import RowPlan, plan_rows
from jaxplm.data.mlm.rows import Plan
from jaxplm.data.mlm.sentence_pairs import PairPlan, plan_pairs
from jaxplm.errors import UserError
from jaxplm.tasks.mlm import MaskedLanguageModelling
from jaxplm.tasks.pairs import MaskedPairs


@dataclass(frozen=True)
class RowSettings:
    """How the rows of a corpus are made from its tokens.

    Attributes:
      seq_len: tokens per row, special ones included.
      packing: documents or stream, see `jaxplm.data.mlm.pack`.
      seed: of the order of the texts in rows.
      texts: indices of the texts to use; all of them if None.
      sentence_ends: returns [V] bool, the tokens that end a sentence. Called only if needed, because it reads the whole vocabulary.
    """

    seq_len: int
    packing: str
    seed: int
    texts: np.ndarray | None
    sentence_ends: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Objective:
    """One way to pre-train an encoder.

    Attributes:
      name: the name in messages.
      pairs: the value of `model.pairs` that selects it.
      task: the loss. Called as `task(characters, max_segments_per_row, logit_parts)`, see `MaskedLanguageModelling`.
      plan: the rows of a tokenized corpus.
      pair_head: whether the model needs a pooler and a head that classifies pairs.
      settings: lines for the settings table of report.md.
      columns: metrics that the table of `configs/evaluate.py` shows besides those of masked language modelling, by heading.
    """

    name: str
    pairs: str
    task: Callable[[np.ndarray | None, int, int], MaskedLanguageModelling]
    plan: Callable[[TokenStore, RowSettings], Plan]
    pair_head: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


def _packed_rows(store: TokenStore, rows: RowSettings) -> RowPlan:
    return plan_rows(store, rows.seq_len, rows.packing, rows.seed, rows.texts)


def _rows_of_pairs(kind: str) -> Callable[[TokenStore, RowSettings], PairPlan]:
    def plan(store: TokenStore, rows: RowSettings) -> PairPlan:
        return plan_pairs(store, rows.seq_len, kind, rows.sentence_ends(), rows.texts, store.meta["source"])

    return plan


def _with_pairs(kind: str, question: str) -> Objective:
    return Objective(f"mlm+{kind}", kind, MaskedPairs, _rows_of_pairs(kind), pair_head=True, settings={"pairs": question},
                     columns={"pair accuracy": "pair_accuracy"})


OBJECTIVES = {objective.name: objective for objective in (
    Objective("mlm", "", MaskedLanguageModelling, _packed_rows),
    _with_pairs("nsp", "is B the next segment, or one of another text?"),
    _with_pairs("sop", "are A and B in order, or exchanged?"),
)}


def selected_objective(pairs: str) -> Objective:
    """Return the objective that a value of `model.pairs` selects.

    Raises:
      UserError: no objective has that value.
    """
    by_value = {objective.pairs: objective for objective in OBJECTIVES.values()}
    if pairs not in by_value:
        raise UserError(f"model.pairs={pairs!r}: must be one of {', '.join(map(repr, by_value))}")
    return by_value[pairs]
