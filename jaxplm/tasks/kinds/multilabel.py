"""Multi-label classification: any number of labels for each text or pair of texts."""

from jaxplm.tasks.kinds.kind import TaskKind


class Multilabel(TaskKind):
    """Any of C labels for each text or pair."""

    name = "multilabel"
    metric_names = ("micro_f1", "macro_f1", "accuracy", "loss")
    options = frozenset(("pooling", "class_weights"))
    hf_class = "SequenceClassification"
    problem_type = "multi_label_classification"
