"""Pieces of different widths into rows of one width, with little room left over: for texts of a corpus and for labelled texts."""

from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np


def ramp(counts: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return 0 ... counts[i] - 1 for each i, one after the other; `begins` is the exclusive sum of `counts`."""
    return np.arange(int(counts.sum())) - np.repeat(begins, counts)


def fill_rows(counts: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Put a histogram of pieces into rows by `best_fit`.

    Args:
      counts: [seq_len + 1] pieces of each width.
      seq_len: the room in a row.

    Returns:
      ranks: [counts.sum()] int64, row after row: the rank of the piece among all pieces sorted by width.
      row_ptr: [rows + 1] int64: row i holds ranks[row_ptr[i] : row_ptr[i + 1]].
    """
    taken = np.cumsum(counts) - counts  # first unused rank of each width
    ranks = np.empty(int(counts.sum()), np.int64)
    sizes, at = [], 0
    for rows, content in best_fit(counts, seq_len):
        each = sum(repeat for _, repeat in content)
        block = ranks[at : at + rows * each].reshape(rows, each)
        column = 0
        for width, repeat in content:
            begin = taken[width]
            taken[width] += rows * repeat
            block[:, column : column + repeat] = np.arange(begin, taken[width]).reshape(rows, repeat)
            column += repeat
        at += rows * each
        sizes.append((each, rows))
    each_row = np.repeat(*np.array(sizes, np.int64).reshape(-1, 2).T)
    return ranks, np.concatenate([[0], np.cumsum(each_row)]).astype(np.int64)


def best_fit(counts: np.ndarray, seq_len: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Pack a histogram of pieces by best-fit-decreasing: widest pieces first, each into the fullest row that it fits.

    Equal rows are handled as one group, so the cost depends on the number of widths, not of pieces (Krell et
    al., "Efficient sequence packing without cross-contamination", 2021, call it longest-pack-first).

    Args:
      counts: [seq_len + 1] pieces of each width.
      seq_len: the room in a row.

    Yields:
      (rows, [(width, repeat), ...]): this number of rows, each with `repeat` pieces of each width.
    """
    groups: dict[int, list[tuple[int, tuple]]] = {}  # room left -> [(rows, content as a linked list)]
    rooms: list[int] = []  # the keys of `groups`, sorted

    def put(room: int, rows: int, content: tuple) -> None:
        if rows:
            if room not in groups:
                groups[room] = []
                insort(rooms, room)
            groups[room].append((rows, content))

    for width in range(seq_len, 0, -1):
        left = int(counts[width])
        while left:
            nearest = bisect_left(rooms, width)
            if nearest == len(rooms):
                put(seq_len, left, ())  # more new rows than needed; the unused ones are taken back below
                continue
            room = rooms[nearest]
            rows, content = groups[room].pop()
            if not groups[room]:
                del groups[room], rooms[nearest]
            # A row that took one is now the fullest that fits, so it takes as many as it can hold.
            repeat = min(room // width, left)
            filled = min(rows, left // repeat)
            left -= filled * repeat
            put(room - repeat * width, filled, (content, width, repeat))
            put(room, rows - filled if content else 0, content)
    for room in rooms:
        for rows, content in groups[room]:
            listed = []
            while content:
                content, width, repeat = content
                listed.append((width, repeat))
            yield rows, listed[::-1]
