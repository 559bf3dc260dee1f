"""Classification: one label for each text or pair of texts."""

from jaxplm.tasks.kinds.kind import TaskKind


class Classify(TaskKind):
    """One label of C for each text or pair."""

    name = "classify"
    metric_names = ("accuracy", "macro_f1", "micro_f1", "mcc", "loss")
    options = frozenset(("pooling", "class_weights", "label_smoothing"))
    hf_class = "SequenceClassification"
    problem_type = "single_label_classification"
