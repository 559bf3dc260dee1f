"""What is to be learned from encoded texts: a value and a weight for each unit, or for each of its tokens."""

from dataclasses import dataclass

import numpy as np

from jaxplm.data.labelled.unit_rows import PlacedRows


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of the n units of an `Encoded`, or of their T tokens.

    Attributes:
      values: [n, ...], or [T, ...] with `per_token`; as the loss reads them. Anything valid where the weight is 0.
      weights: [n] or [T] float32, 1 where there is something to learn, 0 elsewhere.
      per_token: values belong to tokens and not to units.
      positions: values are places of tokens, counted from the start of their unit.
    """

    values: np.ndarray
    weights: np.ndarray
    per_token: bool = False
    positions: bool = False

    def place(self, rows: PlacedRows) -> tuple[np.ndarray, np.ndarray]:
        """Return the values and weights of packed rows: [B, S, ...] and [B, S], or [B, L, ...] and [B, L] with `per_token`.

        Positions are counted from the start of the row there. Both are 0 where a row holds no unit.
        """
        if self.per_token:
            return rows.of_tokens(self.values), rows.of_tokens(self.weights)
        values = self.values[rows.units]
        if self.positions:
            values = (values + rows.begin[:, None]).astype(self.values.dtype)
        return rows.in_segments(values), rows.of_units(self.weights)
