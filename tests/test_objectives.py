"""The table of pre-training objectives: one entry for each value of `model.pairs`, the same for training and evaluation."""

import ast
from pathlib import Path

import numpy as np
import pytest
from helpers import random_batch, tiny_config, trainer
from pages import run_code

from jaxplm import config
from jaxplm.data.mlm.sentence_pairs import KINDS, PairPlan
from jaxplm.errors import UserError
from jaxplm.tasks import objectives
from jaxplm.tasks.mlm import MaskedLanguageModelling
from jaxplm.tasks.objectives import OBJECTIVES, RowSettings, selected_objective
from jaxplm.tasks.pairs import MaskedPairs

RECIPES = Path(config.__file__).parent / "recipes"


class Store:
    """Two tokenized texts of 12 tokens; every fourth token ends a sentence."""

    tokens = np.tile(np.arange(10, 14, dtype=np.int32), 6)
    offsets = np.array([0, 12, 24])
    word_starts = np.ones(24, bool)
    meta = {"source": "the test"}


def test_every_choice_of_the_field_selects_one_objective():
    assert [objective.pairs for objective in OBJECTIVES.values()] == list(config.choices("model.pairs")) == ["", *KINDS]
    assert {name: objective.name for name, objective in OBJECTIVES.items()} == {name: name for name in OBJECTIVES}
    assert selected_objective("").task is MaskedLanguageModelling
    assert selected_objective("sop").task is MaskedPairs
    with pytest.raises(UserError, match=r"model.pairs='electra'.*'nsp'"):
        selected_objective("electra")


def test_an_objective_makes_its_own_rows():
    read = []

    def sentence_ends() -> np.ndarray:
        read.append(True)
        return np.arange(20) == 13

    rows = RowSettings(seq_len=16, packing="documents", seed=0, texts=None, sentence_ends=sentence_ends)
    packed = selected_objective("").plan(Store(), rows)  # type: ignore[arg-type]
    assert (packed.rows, packed.tokens, read) == (2, 24, [])
    pairs = selected_objective("sop").plan(Store(), rows)  # type: ignore[arg-type]
    assert isinstance(pairs, PairPlan) and pairs.kind == "sop" and read == [True]


def test_only_objectives_with_pairs_need_a_pair_head_and_show_its_metric():
    assert {name: (objective.pair_head, dict(objective.columns)) for name, objective in OBJECTIVES.items()} == {
        "mlm": (False, {}), "mlm+nsp": (True, {"pair accuracy": "pair_accuracy"}), "mlm+sop": (True, {"pair accuracy": "pair_accuracy"})}


@pytest.mark.slow
def test_the_objective_of_the_documentation_trains(monkeypatch):
    monkeypatch.setattr(objectives, "OBJECTIVES", OBJECTIVES.copy())
    run_code("extend/objective.md")
    chosen = selected_objective("penalty")
    task = chosen.task(None, 0, 1)
    state, step, put = trainer(tiny_config(layers=1), task=task, warmup=0)
    state, found = step(state, put(random_batch()))
    metrics = task.metrics({name: float(value) for name, value in found.items()})
    assert metrics["penalty"] == pytest.approx(1e-4 * np.log(1013) ** 2, rel=0.1)  # a uniform distribution, nearly
    assert float(found["nonfinite"]) == 0
    assert chosen.plan is OBJECTIVES["mlm"].plan and list(chosen.columns.values()) == ["penalty"]


def test_no_recipe_chooses_a_loss_by_itself():
    """Recipes take the loss of pre-training from the table; none imports one."""
    losses = {"jaxplm.tasks.mlm", "jaxplm.tasks.pairs"}
    found = {f"{path.name}: {node.module}" for path in RECIPES.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))
             if isinstance(node, ast.ImportFrom) and node.module in losses}
    assert not found
