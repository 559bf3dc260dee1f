"""Several sources of rows in one run: the source of each row, and which of its rows it is, by its place in the run.

An epoch of a mixture has a fixed number of rows of each source. They are spread evenly, so that every step has its
share of each source, and any step is computed without the ones before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jaxplm.data import rng
from jaxplm.data.mlm.rows import PairRows, Plan, Rows, SpecialIds
from jaxplm.data.order import RowOrder
from jaxplm.data.rng import RowDraws

MOST_ROWS = 3_037_000_498  # per epoch: the square of one more fits into 63 bits


class MixtureOrder:
    """A seeded order of the rows of several sources over all epochs. Nothing is stored.

    Each source has an order of its own over its own epochs, and is read as often as its share asks for. The first
    source is read in the order that it has alone.

    Args:
      seed: of the order within each source.
      sizes: rows of each source.
      counts: rows of each source in an epoch of the mixture, at least 1.

    Attributes:
      rows: in an epoch of the mixture.

    Raises:
      ValueError: more than `MOST_ROWS` rows per epoch.
    """

    def __init__(self, seed: int, sizes: Sequence[int], counts: Sequence[int]) -> None:
        self.rows = sum(counts)
        if self.rows > MOST_ROWS:
            raise ValueError(f"{self.rows:,} rows per epoch: a mixture has at most {MOST_ROWS:,}")
        self._counts = tuple(counts)
        self._orders = [RowOrder(rng.key(seed, i) if i else seed, size) for i, size in enumerate(sizes)]
        self._first = np.cumsum([0, *sizes])

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return [b] int64: the rows of these samples [b], which are counted from the start of the run over all epochs.

        The rows of a source are numbered behind those of the sources before it.
        """
        source, number = self.places(samples)
        rows = np.empty(len(source), np.int64)
        for i, order in enumerate(self._orders):
            here = source == i
            rows[here] = self._first[i] + order(number[here])
        return rows

    def places(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the source of each sample [b], and how many samples before it are of that source, [b] int64 each."""
        epoch, number = np.divmod(np.asarray(samples, np.int64), self.rows)
        source = np.empty(len(number), np.int64)
        undecided, left = np.arange(len(number)), self.rows
        # Of n places that are left, source i has `count`, spread evenly: those where floor(place × count / n) rises at
        # the next place. The others are left to the sources behind it.
        for i, count in enumerate(self._counts):
            place = number[undecided]
            before = place * count // left
            mine = (place + 1) * count // left > before
            source[undecided[mine]] = i
            number[undecided] = np.where(mine, before, place - before)
            undecided, left = undecided[~mine], left - count
        return source, epoch * np.array(self._counts)[source] + number

    def drawn(self, samples: int) -> list[int]:
        """Return how many of the first `samples` samples are of each source."""
        epochs, rest = divmod(samples, self.rows)
        left, found = self.rows, []
        for count in self._counts:
            taken = rest * count // left
            found.append(epochs * count + taken)
            rest, left = rest - taken, left - count
        return found


@dataclass(frozen=True, eq=False)
class Mixture:
    """The rows of several sources as one plan; see `jaxplm.data.mlm.rows.Plan`.

    Row ids are those of `order`: the rows of a source follow those of the sources before it. All else is about an
    epoch.
    """

    plans: tuple[Plan, ...]  # of one sequence length
    counts: tuple[int, ...]  # rows of each plan in an epoch, at least 1

    @property
    def rows(self) -> int:
        """Rows in an epoch."""
        return sum(self.counts)

    @property
    def seq_len(self) -> int:
        return self.plans[0].seq_len

    @property
    def tokens(self) -> int:
        """Tokens of the texts in an epoch, without special tokens."""
        return self._in_an_epoch([plan.tokens for plan in self.plans])

    @property
    def real_tokens(self) -> int:
        """Tokens of an epoch that are not padding."""
        return self._in_an_epoch([plan.real_tokens for plan in self.plans])

    @property
    def fill(self) -> float:
        """Share of the tokens of an epoch's rows that is not padding."""
        return self.real_tokens / (self.rows * self.seq_len)

    @property
    def max_segments(self) -> int:
        """The largest number of segments in a row."""
        return max(plan.max_segments for plan in self.plans)

    def _in_an_epoch(self, per_pass: Sequence[int]) -> int:
        """Return the sum over an epoch of what each plan has in one pass."""
        found = zip(self.plans, self.counts, per_pass, strict=True)
        return round(sum(count / plan.rows * own for plan, count, own in found))

    def order(self, seed: int) -> MixtureOrder:
        """Return the order of the rows over all epochs."""
        return MixtureOrder(seed, [plan.rows for plan in self.plans], self.counts)

    def gather(self, row_ids: np.ndarray, special: SpecialIds, draws: RowDraws) -> Rows | PairRows:
        """Build the rows `row_ids` [b], each from the plan of its source; `draws` has their random numbers."""
        first = np.cumsum([0, *(plan.rows for plan in self.plans)])
        source = np.searchsorted(first, row_ids, side="right") - 1
        found, where = [], []
        for i in np.unique(source):
            here = np.flatnonzero(source == i)
            where.append(here)
            found.append(self.plans[i].gather(row_ids[here] - first[i], special, RowDraws(draws.key, draws.rows[here])))
        back = np.argsort(np.concatenate(where))
        return type(found[0])(*(np.concatenate(arrays)[back] for arrays in zip(*found, strict=True)))


def divide_rows(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` rows by weights: parts that add up to `total`, each its exact share but for rounding.

    What rounding down leaves goes to the parts with the largest remainders.
    """
    exact = [Fraction(weight) * total / sum(map(Fraction, weights)) for weight in weights]
    parts = [int(share) for share in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return tuple(parts)


def replayed_rows(total: int, share: float) -> int:
    """Return how many rows are added to `total` so that they are a share of all."""
    return round(total * share / (1 - share))
