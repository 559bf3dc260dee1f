"""The length of rows that units of given lengths share."""

import numpy as np

from jaxplm.data.labelled.unit_rows import plan_units

_MULTIPLE = 16
# Rows are this many times as long as the longest unit: where most units take more than half of a row, only longer rows fill up.
_TIMES = (1.0, 1.5, 2.0, 3.0, 4.0)


def row_length(lengths: np.ndarray, longest: int, width: int) -> int:
    """Return L, a multiple of 16 of at least `longest`, for which the encoder has the least to compute.

    A token's products cost 24 D² operations per layer, and its attention 4 L D; the softmax makes the latter count about
    three times. Padding costs as much as any token.

    Args:
      lengths: [n] tokens of typical units.
      longest: tokens of the longest unit that may come.
      width: D.
    """
    least = -(-max(longest, 2 * _MULTIPLE) // _MULTIPLE) * _MULTIPLE
    best, cost = least, np.inf
    for length in (int(-(-least * times // _MULTIPLE)) * _MULTIPLE for times in _TIMES):
        places = plan_units(lengths, length).rows * length
        if (now := places * (1 + length / (2 * width))) < 0.99 * cost:
            best, cost = length, now
    return best
