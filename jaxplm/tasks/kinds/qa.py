"""Extractive question answering: where in a context the answer to a question is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxplm.config import Task
from jaxplm.data.labelled.encode import encode_questions
from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Example, Examples
from jaxplm.data.labelled.label_set import LabelSet
from jaxplm.data.labelled.label_values import Answers, is_empty, read_answers, read_text, warn_moved
from jaxplm.data.labelled.reading import Columns, DataFields
from jaxplm.data.labelled.tagged_reading import TaggedReading
from jaxplm.data.labelled.targets import Targets
from jaxplm.data.sources.columns import Row
from jaxplm.scores import row_parts
from jaxplm.scores.answers import Window, best_span
from jaxplm.scores.metric import metrics_named
from jaxplm.scores.row_parts import RowParts
from jaxplm.scores.squad import answer_scores, qa_scores
from jaxplm.tasks.kinds.kind import EvalSet, RowSet, TaskKind
from jaxplm.tasks.results import Result

if TYPE_CHECKING:
    from jaxplm.tasks.labelled import LabelledTask


class QuestionAnswering(TaskKind):
    """The first and the last token of an answer in each window over the context (Devlin et al. 2019, section 4.2).

    Rows are those of SQuAD 1.1 or 2.0, or have the columns `question`, `context` and `answers`. A label is `Answers`.
    A prediction has `id`, `label`, the text of the answer ("" for none), `start`, its first character in the context (-1 for
    none), and `scores`, the sum of its two logits.
    """

    name = "qa"
    metrics = metrics_named("f1", "exact_match", "loss")
    per_token = True
    token_dropout = False
    options = frozenset(("overlap", "max_answer", "rules"))
    least_outputs = most_outputs = 2
    hf_class = "QuestionAnswering"
    pipeline_tag = "question-answering"
    usage = """import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
inputs = tokenizer("a question", "the text with its answer", return_tensors="pt")
with torch.no_grad():
    output = model(**inputs)
first, last = output.start_logits.argmax(), output.end_logits.argmax()
tokenizer.decode(inputs["input_ids"][0, first : last + 1])"""

    def columns(self, data: DataFields) -> Columns:
        return Columns({"question": "", "context": ""}, {"answers": ""}, ("answers", "is_impossible", "id", "guid"))

    def read(self, row: Row, data: DataFields, where: str, number: int) -> Example:
        question, context = (read_text(row.get(column), where) for column in ("question", "context"))
        label = read_answers(row, context, where)
        fault = "missing" if label is None else "no_answer" if label.texts and not label.spans else ""
        if not question.strip() or not context.strip():
            fault = "empty"
        name = next((row[column] for column in ("id", "guid") if not is_empty(row.get(column))), number)
        return Example(question, context, label=label, id=read_text(name, where), fault=fault)

    def settle(self, examples: Examples, reading: TaggedReading) -> Examples:
        warn_moved(examples.labels, examples.describe)
        return examples

    def group_keys(self, examples: Examples) -> list[str]:
        """Return the contexts: all questions about one are held out together."""
        assert examples.pairs is not None
        return examples.pairs

    def has_unanswerable(self, examples: Examples) -> bool:
        return any(not label.texts for label in examples.labels if label is not None)

    def num_outputs(self, labels: LabelSet) -> int:
        return 2

    def encode(self, examples: Examples, tokenizer: Any, seq_len: int, overlap: int) -> Encoded:
        return encode_questions(examples, tokenizer, seq_len, overlap)

    def targets(self, examples: Examples, encoded: Encoded, labels: LabelSet) -> Targets:
        """Return [n, 2] int32: first and last token of the answer in each window that holds all of it, else (0, 0)."""
        spans, known = _target_spans(examples)
        return Targets(_answer_tokens(encoded, spans), known[encoded.example].astype(np.float32), positions=True)

    def loss(self, task: Task, labels: LabelSet) -> "LabelledTask":
        from jaxplm.tasks.kinds.qa_loss import AnswerSpan

        return AnswerSpan()

    def score(self, eval_set: EvalSet, logits: np.ndarray) -> Result:
        encoded, examples = eval_set.encoded, eval_set.examples
        assert encoded.chars is not None and examples.pairs is not None and examples.ids is not None
        bounds = np.searchsorted(encoded.example, np.arange(len(examples) + 1)).tolist()
        predictions: list[dict[str, Any]] = []
        for context, begin, end in zip(examples.pairs, bounds[:-1], bounds[1:], strict=True):
            windows = [_window(encoded, logits, unit) for unit in range(begin, end)]
            span = best_span(windows, eval_set.task.max_answer, 0.0 if eval_set.has_unanswerable else None)
            if span is None:
                predictions.append({"label": "", "start": -1, "scores": None})
                continue
            at = int(encoded.offsets[begin + span.window])
            start, stop = int(encoded.chars[at + span.first, 0]), int(encoded.chars[at + span.last, 1])
            predictions.append({"label": context[start:stop], "start": start, "scores": round(span.score, 6)})
        # Numbered by row: the ids of a file are its own, and need not differ.
        references = {str(i): list(label.texts) for i, label in enumerate(examples.labels) if isinstance(label, Answers)}
        answers = {key: predictions[int(key)]["label"] for key in references}
        scores = qa_scores(answers, references, eval_set.task.rules) if references else {}
        return Result(scores, [{"id": key} | one for key, one in zip(examples.ids, predictions, strict=True)])

    def row_parts(self, metric: str, rows: RowSet, predictions: Sequence[Mapping[str, Any]]) -> RowParts | None:
        if metric not in ("f1", "exact_match"):
            return None
        found = [answer_scores(one["label"], label.texts, rows.task.rules)
                 for one, label in zip(predictions, rows.examples.labels, strict=True)]
        return row_parts.ratio([f1 if metric == "f1" else exact for exact, f1 in found])


def _target_spans(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return [examples, 2]: the characters of the answer that is learned, the first (-1: there is none); [examples] bool: it is known."""
    spans = np.full((len(examples), 2), -1, np.int64)
    known = np.zeros(len(examples), bool)
    assert examples.pairs is not None
    for i, (label, context) in enumerate(zip(examples.labels, examples.pairs, strict=True)):
        if isinstance(label, Answers):
            known[i] = bool(label.spans) or not label.texts
            if label.spans:
                begin, end = label.spans[0]
                answer = context[begin:end]
                spans[i] = begin + len(answer) - len(answer.lstrip()), begin + len(answer.rstrip())
    return spans, known


def _answer_tokens(encoded: Encoded, spans: np.ndarray) -> np.ndarray:
    """Return [n, 2] int32: first and last token of the answer in each window that holds all of it, else (0, 0)."""
    chars = encoded.chars
    assert chars is not None
    unit = np.repeat(np.arange(len(encoded)), encoded.lengths)
    begin, end = spans[encoded.example, 0], spans[encoded.example, 1]
    real = chars[:, 1] > chars[:, 0]  # of the context, and not an empty stretch of it
    starts = encoded.offsets[:-1]
    window_begin = np.minimum.reduceat(np.where(real, chars[:, 0], np.iinfo(np.int32).max), starts)
    window_end = np.maximum.reduceat(np.where(real, chars[:, 1], -1), starts)
    inside = real & (chars[:, 1] > begin[unit]) & (chars[:, 0] < end[unit])
    place = np.arange(len(unit)) - starts[unit]
    first = np.minimum.reduceat(np.where(inside, place, np.iinfo(np.int64).max), starts)
    last = np.maximum.reduceat(np.where(inside, place, -1), starts)
    holds = (begin >= 0) & (last >= 0) & (window_begin <= begin) & (window_end >= end)
    return np.where(holds[:, None], np.stack([first, last], 1), 0).astype(np.int32)


def _window(encoded: Encoded, logits: np.ndarray, unit: int) -> Window:
    begin, end = int(encoded.offsets[unit]), int(encoded.offsets[unit + 1])
    assert encoded.chars is not None
    context = np.flatnonzero(encoded.chars[begin:end, 0] >= 0)
    edges = (int(context[0]), int(context[-1]) + 1) if context.size else (0, 0)
    return Window(logits[begin:end, 0], logits[begin:end, 1], edges)
