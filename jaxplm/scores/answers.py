"""The answer to a question from the logits of its windows (Devlin et al. 2019, section 4.3)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Window(NamedTuple):
    """Logits of one window of a question: [CLS] question [SEP] part of the context [SEP], L tokens."""

    start: Any  # [L], logits of the first token of the answer
    end: Any  # [L], logits of the last token
    context: tuple[int, int]  # the tokens of the context: first, last + 1


class Span(NamedTuple):
    """Tokens `first` to `last`, both in it, of window `window`."""

    window: int
    first: int
    last: int
    score: float  # sum of the two logits


def null_score(windows: Sequence[Window]) -> float:
    """Return the score of 'no answer' of one question: the sum of both logits of [CLS], the lowest of its windows.

    An answer that lies in one window leaves the others without one, so one window that is sure of its answer is enough.
    """
    return min(float(window.start[0]) + float(window.end[0]) for window in windows)


def best_span(windows: Sequence[Window], max_answer: int, null_threshold: float | None = None) -> Span | None:
    """Return the answer to one question, or None for 'no answer'.

    A span lies in the context of its window and starts before it ends. The score of a window's span is compared with those of
    the other windows as it is. Of equal spans the one of the earlier window wins, then the earlier start, then the shorter one.

    Args:
      windows: of one question.
      max_answer: tokens of an answer, at most.
      null_threshold: an answer is given only if its score is above `null_score` + this (τ in the paper; the usual
        scripts use the opposite sign). None: an answer is given whenever there is a span (SQuAD 1.1).
    """
    best = None
    for number, window in enumerate(windows):
        span = _best_of_window(number, window, max_answer)
        if span is not None and (best is None or span.score > best.score):
            best = span
    if best is None or (null_threshold is not None and best.score <= null_score(windows) + null_threshold):
        return None
    return best


def _best_of_window(number: int, window: Window, max_answer: int) -> Span | None:
    low, high = window.context
    start, end = (np.asarray(logits, np.float64)[low:high] for logits in (window.start, window.end))
    if not len(start):
        return None
    reach = min(max_answer, len(start))
    ends = np.lib.stride_tricks.sliding_window_view(np.append(end, np.full(reach - 1, -np.inf)), reach)
    # A band of the [L, L] matrix of spans: [l, k] is the span from l to l + k; beyond the context it is -inf.
    scores = (start[:, None] + ends).ravel()
    place = int(np.argmax(scores))
    if scores[place] == -np.inf:
        return None
    first, length = divmod(place, reach)
    return Span(number, low + first, low + first + length, float(scores[place]))
