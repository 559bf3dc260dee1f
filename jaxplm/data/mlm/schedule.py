"""What changes with the step's number: the mask rate and the length of the rows. Both are pure functions of it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class MaskRate(NamedTuple):
    """Share of the maskable tokens: `first` at step 0, `last` at the last of `steps`, on a straight line between.

    A rate that falls lets early steps see little context and late ones the texts nearly as they are (Yang et al., "Learning
    better masking for better language model pre-training", 2023).
    """

    first: float
    last: float
    steps: int

    @property
    def highest(self) -> float:
        return max(self.first, self.last)

    def __call__(self, step: int) -> float:
        """The rate of a step, counted from 0; from `steps` on it stays at `last`."""
        share = min(step / max(1, self.steps - 1), 1.0)
        rate = (1 - share) * self.first + share * self.last
        return min(max(rate, min(self.first, self.last)), self.highest)  # rounding must not lead outside


class Batches(Protocol):
    """What is composed here: `pipeline.MlmBatches`."""

    real_tokens: int
    steps_per_epoch: float
    max_segments_per_row: int  # at most

    def batch(self, step: int) -> Any: ...


class Lengths(NamedTuple):
    """How the two lengths of rows share a run of any number of steps.

    An epoch is one pass over the text, whatever the length of the rows it is read in. With a share s of the steps in
    short rows, of which a pass needs n steps, and the rest in long rows, of which it needs m, a step reads s / n + (1 - s) / m
    of the text on average.
    """

    share: float  # of the steps in short rows
    short_epoch: float  # steps for a pass over the text in short rows
    long_epoch: float

    @property
    def steps_per_epoch(self) -> float:
        return 1 / (self.share / self.short_epoch + (1 - self.share) / self.long_epoch)

    def short_steps(self, steps: int) -> int:
        """So many of the first steps have short rows."""
        return round(self.share * steps)


class ShortThenLong:
    """Training batches in short rows first, then in long ones (Devlin et al. 2019: 90 % of the steps at 128 tokens, then 512).

    Attention costs grow with the square of a row's length, and most of what there is to learn needs no long context. Both
    phases have as many rows a step, and begin an epoch of their own. Two shapes: the train step is compiled twice.

    Args:
        short: batches of short rows.
        long: makes the batches of long rows, from the number of the first step that they are for.
        lengths: how the steps are shared.
        steps: of the run.
    """

    def __init__(self, short: Batches, long: Callable[[int], Batches], lengths: Lengths, steps: int) -> None:
        self.short_steps = lengths.short_steps(steps)
        self._short, self._long = short, long(self.short_steps)
        self.steps_per_epoch = lengths.steps_per_epoch
        self.max_segments_per_row = max(self._short.max_segments_per_row, self._long.max_segments_per_row)
        # A pass over the text is made in short rows for this share of the tokens.
        by_short = self.steps_per_epoch * lengths.share / lengths.short_epoch
        self.real_tokens = round(by_short * self._short.real_tokens + (1 - by_short) * self._long.real_tokens)

    def batch(self, step: int) -> Any:
        """The batch of a step, counted from 0: always the same for the same number."""
        return (self._short if step < self.short_steps else self._long).batch(step)
