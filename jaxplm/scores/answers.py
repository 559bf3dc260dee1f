"""From the logits of a question's windows to its answer (Devlin et al. 2019, section 4.3)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Window(NamedTuple):
    """What the model says of one window of a question: [CLS] question [SEP] part of the context [SEP], L tokens."""

    start: Any  # [L], logits of the first token of the answer
    end: Any  # [L], logits of the last token
    context: tuple[int, int]  # the tokens of the context: from, up to but without


class Span(NamedTuple):
    """Tokens `first` to `last`, both in it, of window `window`."""

    window: int
    first: int
    last: int
    score: float  # sum of the two logits


def best_spans(windows: Sequence[Window], max_answer: int, count: int) -> list[Span]:
    """The best spans of one question, best first; of equal ones the earlier window, then the earlier start, then the shorter.

    A span lies in the context of its window and starts before it ends. The score of a window's span is compared with
    those of the other windows as it is. A span that two windows hold is given for each.

    Args:
      windows: of one question.
      max_answer: a span has at most so many tokens.
      count: at most so many spans; fewer where there are not as many.
    """
    found: list[Span] = []
    for number, window in enumerate(windows):
        low, high = window.context
        start, end = (np.asarray(logits, np.float64)[low:high] for logits in (window.start, window.end))
        if not len(start):
            continue
        reach = min(max_answer, len(start))
        ends = np.lib.stride_tricks.sliding_window_view(np.append(end, np.full(reach - 1, -np.inf)), reach)
        # A band of the [L, L] matrix of spans: [l, k] is the span from l to l + k.
        scores = (start[:, None] + ends).ravel()
        best = np.argsort(-scores, kind="stable")[:count] if count > 1 else [int(np.argmax(scores))]
        for place in best:
            if scores[place] > -np.inf:  # else it would end beyond the context
                first, length = divmod(int(place), reach)
                found.append(Span(number, low + first, low + first + length, float(scores[place])))
    return sorted(found, key=lambda span: -span.score)[:count]


def null_score(windows: Sequence[Window]) -> float:
    """The score of 'no answer' of one question: both logits of [CLS], the lowest of its windows.

    An answer that lies in one window leaves the others without one, so one window that is sure of its answer is enough.
    """
    return min(float(window.start[0]) + float(window.end[0]) for window in windows)


def best_span(windows: Sequence[Window], max_answer: int, null_threshold: float | None = None) -> Span | None:
    """The answer to one question, or None for 'no answer'.

    Args:
      windows: of one question.
      max_answer: an answer has at most so many tokens.
      null_threshold: an answer is given only if its score is above `null_score` + this (τ in the paper; the usual
        scripts turn the sign round). None: an answer is given whenever there is a span (SQuAD 1.1).
    """
    spans = best_spans(windows, max_answer, 1)
    if not spans or (null_threshold is not None and spans[0].score <= null_score(windows) + null_threshold):
        return None
    return spans[0]
