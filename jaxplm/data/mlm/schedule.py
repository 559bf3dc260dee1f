"""What changes with the step: the mask rate and the sequence length. Both are pure functions of the step's number."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxplm.data.batch import Batch, PairBatch


class MaskRate(NamedTuple):
    """The share of the maskable tokens that is masked: `first` at step 0, `last` at the last of `steps`, linear between.

    With a falling rate early steps see little context and late ones the texts nearly as they are (Yang et al., "Learning
    better masking for better language model pre-training", 2023).
    """

    first: float
    last: float
    steps: int

    @classmethod
    def constant(cls, rate: float) -> "MaskRate":
        """Return the same rate for every step."""
        return cls(rate, rate, 1)

    @property
    def highest(self) -> float:
        return max(self.first, self.last)

    def __call__(self, step: int) -> float:
        """Return the rate of a step, counted from 0; from `steps` on it stays at `last`."""
        share = min(step / max(1, self.steps - 1), 1.0)
        rate = (1 - share) * self.first + share * self.last
        return min(max(rate, min(self.first, self.last)), self.highest)  # rounding must not exceed the ends


class Batches(Protocol):
    """Training batches of one sequence length: `batches.MlmBatches`."""

    @property
    def real_tokens(self) -> int: ...

    @property
    def max_segments_per_row(self) -> int: ...

    def batch(self, step: int) -> Batch | PairBatch: ...


class SeqLenSchedule(NamedTuple):
    """How two sequence lengths share a run of any number of steps.

    An epoch is one pass over the text, whatever the length of the rows it is read in. With a share s of the steps in
    short rows, of which a pass needs n steps, and the rest in long rows, of which it needs m, a step reads s / n + (1 - s) / m
    of the text on average.
    """

    short_share: float  # of the steps in short rows
    short_epoch: float  # steps for a pass over the text in short rows
    long_epoch: float  # the same in long rows

    @property
    def steps_per_epoch(self) -> float:
        return 1 / (self.short_share / self.short_epoch + (1 - self.short_share) / self.long_epoch)

    def short_steps(self, steps: int) -> int:
        """Return how many of the run's steps, the first ones, have short rows."""
        return round(self.short_share * steps)


class SeqLenScheduledBatches:
    """Training batches in short rows first, then in long ones (Devlin et al. 2019: 90 % of the steps at 128 tokens, then 512).

    Attention's cost grows with the square of the sequence length, and most of what there is to learn needs no long context.
    Both phases have as many rows per step, and begin an epoch of their own. Two shapes: the train step is compiled twice.

    Args:
      short: batches of short rows.
      long: makes the batches of long rows, from the number of the first step that they are for.
      schedule: how the steps are shared.
      steps: of the run.
    """

    def __init__(self, short: Batches, long: Callable[[int], Batches], schedule: SeqLenSchedule, steps: int) -> None:
        self.short_steps = schedule.short_steps(steps)
        self._short = short
        self._long = long(self.short_steps)
        self.steps_per_epoch = schedule.steps_per_epoch
        self.max_segments_per_row = max(self._short.max_segments_per_row, self._long.max_segments_per_row)
        # The share of a pass over the text that is read in short rows.
        by_short = self.steps_per_epoch * schedule.short_share / schedule.short_epoch
        self.real_tokens = round(by_short * self._short.real_tokens + (1 - by_short) * self._long.real_tokens)

    def batch(self, step: int) -> Batch | PairBatch:
        """Return the batch of a step, counted from 0: always the same for the same number."""
        return (self._short if step < self.short_steps else self._long).batch(step)
