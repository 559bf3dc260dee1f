"""Tagging: one label for each token of a sentence, such as the entities in it."""

from jaxplm.tasks.kinds.kind import TaskKind


class Tag(TaskKind):
    """A tag for each token of a sentence that comes as a list of tokens."""

    name = "tag"
    metric_names = ("f1", "precision", "recall", "accuracy", "macro_f1", "micro_f1", "loss")  # the last three: also of plain tags
    per_token = True
    options = frozenset(("body", "class_weights", "label_smoothing", "overlap"))
    hf_class = "TokenClassification"
