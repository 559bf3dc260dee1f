"""Extractive question answering: where in a context the answer to a question is."""

from jaxplm.tasks.kinds.kind import TaskKind


class QuestionAnswering(TaskKind):
    """The first and the last token of an answer, by SQuAD's rules."""

    name = "qa"
    metric_names = ("f1", "exact_match", "loss")
    per_token = True
    options = frozenset(("overlap", "max_answer", "rules"))
    hf_class = "QuestionAnswering"
