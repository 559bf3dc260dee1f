"""Regression: a number for each text or pair of texts."""

from jaxplm.tasks.kinds.kind import TaskKind


class Regress(TaskKind):
    """A number for each text or pair."""

    name = "regress"
    metric_names = ("spearman", "pearson", "mse", "loss")
    options = frozenset(("pooling",))
    hf_class = "SequenceClassification"
    problem_type = "regression"
