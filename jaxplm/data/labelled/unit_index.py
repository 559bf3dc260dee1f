"""Where the tokens of packed rows stand in the set that they come from."""

import numpy as np


def token_index(units: np.ndarray, lengths: np.ndarray, seq_len: int) -> np.ndarray:
    """Return which token of the set each place of the rows holds.

    Args:
      units: [B, S] int64, the unit in each segment of each row, in the order of the row; -1 for an unused segment.
      lengths: [n] tokens of each unit. The set's tokens are those of its units, one unit after the other.
      seq_len: L.

    Returns:
      [B, L] int64, -1 for padding.
    """
    index = np.full((len(units), seq_len), -1, np.int64)
    row, segment = np.nonzero(units >= 0)
    chosen = units[row, segment]
    if not chosen.size:
        return index
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    widths = lengths[chosen]
    ends = np.cumsum(widths)
    within = np.arange(ends[-1]) - np.repeat(ends - widths, widths)  # place in its unit, for every token
    before = np.bincount(row, widths, len(units)).astype(np.int64)  # tokens of each row
    row_begins = (np.cumsum(before) - before)[row]
    column = np.repeat(ends - widths - row_begins, widths) + within
    index[np.repeat(row, widths), column] = np.repeat(offsets[chosen], widths) + within
    return index
