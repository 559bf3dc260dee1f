"""The registry of task kinds: complete, light to import, and open."""

import subprocess
import sys

import pytest

from jaxplm.config import Task
from jaxplm.errors import UserError
from jaxplm.scores.metric import metrics_named
from jaxplm.tasks.kinds import KINDS, register
from jaxplm.tasks.kinds.regress import Regress


def test_the_registry_is_imported_without_jax():
    """The choices of `task.kind` come from it, and a wrong flag is answered before JAX is imported."""
    code = "import sys, jaxplm.tasks.kinds; print([name for name in ('jax', 'flax', 'transformers', 'datasets') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_a_kind_says(kind):
    assert KINDS[kind.name] is kind
    assert kind.metric_names[0] != "loss" and kind.metric_names[-1] == "loss"
    assert kind.options <= {*vars(Task())}
    kind.check(Task(kind=kind.name))
    for metric in kind.metric_names:
        kind.check(Task(kind=kind.name), metric)


@pytest.mark.parametrize(("kind", "field", "value", "reason"), [
    ("classify", "body", "lstm", "per text"), ("qa", "body", "transformer", ""), ("tag", "pooling", "mean", "every token"),
    ("qa", "pooling", "max", "every token"), ("regress", "class_weights", "balanced", "no classes"),
    ("qa", "class_weights", "balanced", "no classes"), ("multilabel", "label_smoothing", 0.1, ""), ("qa", "label_smoothing", 0.1, ""),
])
def test_options_that_a_kind_has_no_use_for(kind, field, value, reason):
    with pytest.raises(UserError) as said:
        KINDS[kind].check(Task(kind=kind, **{field: value}))
    for part in (f"task.{field}={value!r}", f"task.kind={kind}", reason):
        assert part in str(said.value)


def test_a_metric_of_another_kind():
    with pytest.raises(UserError, match=r"train\.metric='spearman'.*classify.*accuracy"):
        KINDS["classify"].check(Task(kind="classify"), "spearman")


def test_register():
    class Mine(Regress):
        name = "mine"
        metrics = metrics_named("mse", "loss")

    try:
        assert register(Mine()) is KINDS["mine"]
        again = register(Mine())
        assert KINDS["mine"] is again, "a config file may be executed twice"
    finally:
        del KINDS["mine"]
    with pytest.raises(ValueError, match="'tag' exists already"):
        register(type("Other", (Regress,), {"name": "tag"})())
