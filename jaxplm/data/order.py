"""The order of rows in training: every row once per epoch, in an order that is new in each, as a function of the place alone."""

import numpy as np

from jaxplm.data import rng


class RowOrder:
    """A seeded order of `rows` rows over all epochs. Nothing is stored: any place of any epoch is computed by itself."""

    def __init__(self, seed: int, rows: int) -> None:
        self.seed = seed
        self.rows = rows

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the rows [b], int64, of these samples [b], which are counted from the start of the run over all epochs."""
        epoch, place = np.divmod(np.asarray(samples, np.int64), self.rows)
        return rng.permute(place, self.rows, rng.fold(rng.key(self.seed), epoch))
