"""From texts of any length to rows of one length, without losing a token.

`plan_rows` decides once which tokens go into which row; the plan's `gather` builds the rows of a batch.
The tokens themselves stay in the memory-mapped store.

    documents   [CLS] a a a [SEP] [CLS] b b [SEP] [PAD]     segments 1 1 1 1 1 2 2 2 2 0
    stream      [CLS] a a a [SEP] b b b b [SEP]             segments 1 1 1 1 1 1 1 1 1 1
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxplm.config import choices
from jaxplm.data import rng
from jaxplm.data.bin_packing import fill_rows, ramp
from jaxplm.data.corpus.store import TokenArrays
from jaxplm.data.mlm.rows import Rows, SpecialIds
from jaxplm.data.rng import RowDraws
from jaxplm.errors import UserError

# How far a cut may move back to fall between words. Words of more tokens are rare, and are cut.
_CUT_SLACK = 16
# A cut leaves at least this many tokens, so that no piece of one or two tokens is without context. A higher number would
# cost fill (0.2 % at 8, 3 % at 32), because short pieces fill the gaps of other rows.
_MIN_TAIL = 8
# Below this many texts still being cut, a loop over plain integers beats NumPy's cost per call.
_FEW_TEXTS = 64


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Which stretches of a token store make up each row.

    Row r holds pieces row_ptr[r] ... row_ptr[r + 1] - 1; piece p is `lengths[p]` tokens from `starts[p]`.
    """

    store: TokenArrays
    starts: np.ndarray  # [pieces] int64
    lengths: np.ndarray  # [pieces] int32, at least 1
    row_ptr: np.ndarray  # [rows + 1] int64
    seq_len: int
    joined: bool  # True: the pieces of a row are one segment, as in a stream; False: one each

    @property
    def rows(self) -> int:
        return len(self.row_ptr) - 1

    @property
    def pieces(self) -> int:
        return len(self.starts)

    @property
    def tokens(self) -> int:
        """Tokens of the texts, without special tokens."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding: those of the texts and the special tokens around them."""
        return self.tokens + (self.rows + self.pieces if self.joined else 2 * self.pieces)

    @property
    def fill(self) -> float:
        """Share of the tokens of the rows that are not padding."""
        return self.real_tokens / max(1, self.rows * self.seq_len)

    @property
    def max_segments(self) -> int:
        """The largest number of segments in a row."""
        if self.joined or not self.rows:
            return min(1, self.rows)
        return int(np.diff(self.row_ptr).max())

    def gather(self, row_ids: np.ndarray, special: SpecialIds, draws: RowDraws | None = None) -> Rows:
        """Build rows from the store.

        Args:
          row_ids: [b] integers in [0, rows).
          special: ids of the special tokens.
          draws: not used; nothing about these rows is random.

        Returns:
          b rows, each array [b, L].
        """
        del draws
        row_ids = np.asarray(row_ids, np.int64)
        b, length = len(row_ids), self.seq_len
        first = self.row_ptr[row_ids]
        count = self.row_ptr[row_ids + 1] - first  # [b] pieces in each row, at least 1
        begins = np.cumsum(count) - count
        nth = ramp(count, begins)  # [p] which piece of its row, for all p pieces of the batch
        piece = nth + np.repeat(first, count)
        starts, lengths = self.starts[piece], self.lengths[piece].astype(np.int64)

        # A piece takes a [CLS] where a segment starts, its tokens, and a [SEP].
        heads = (nth == 0).astype(np.int64) if self.joined else np.ones_like(nth)
        widths = heads + lengths + 1
        ends = np.cumsum(widths)
        row = np.repeat(np.arange(b), count)
        row_ends = ends[begins + count - 1]  # where the rows would end if there were no padding
        used = np.diff(row_ends, prepend=0)
        place = ends - widths - (row_ends - used)[row] + row * length  # [p] where in the flattened rows

        # Every place belongs to a run: that of a piece, with the padding behind it if it is its row's last.
        last = begins + count - 1
        runs = widths.copy()
        runs[last] += length - used
        here = np.arange(b * length)
        # What lies beside a piece in the store is read too, in place of special tokens, and overwritten.
        source = here + np.repeat(starts - heads - place, runs)
        ids = np.take(np.asarray(self.store.tokens), source, mode="clip").astype(np.int32)
        words = np.take(np.asarray(self.store.word_starts), source, mode="clip")
        words[place + heads] = True
        ids[place[heads == 1]] = special.cls
        ids[place + widths - 1] = special.sep
        row_begin = row * length
        segments = np.repeat(np.where(self.joined, 1, nth + 1).astype(np.int32), runs)
        positions = (here - np.repeat(row_begin if self.joined else place, runs)).astype(np.int32)

        ids, words, segments, positions = (a.reshape(b, length) for a in (ids, words, segments, positions))
        padding = np.arange(length) >= used[:, None]
        ids[padding] = special.pad
        segments[padding] = 0
        positions[padding] = 0
        # Also where the text itself spells a special token out, or was not understood: that is no word to be guessed.
        maskable = (ids != special.cls) & (ids != special.sep) & (ids != special.pad) & (ids != special.mask) & (ids != special.unk)
        return Rows(ids, segments, positions, words & maskable, maskable)


def plan_rows(store: TokenArrays, seq_len: int, packing: str, seed: int = 0, texts: np.ndarray | None = None) -> RowPlan:
    """Divide texts into rows of `seq_len` tokens; every token is in exactly one row.

    Args:
      store: the tokenized texts.
      seq_len: L, tokens per row, special ones included.
      packing: 'documents': each text is a segment of its own; longer ones are cut, between words where
        possible, into full pieces and a rest; shorter ones share rows. 'stream': texts are joined by the
        separator and cut every seq_len - 2 tokens.
      seed: which texts of equal length share rows ('documents').
      texts: indices of the texts to use; all of them when None.

    Returns:
      The plan. The rows of 'documents' come in no useful order and want shuffling; those of 'stream' in the
      order of the texts.

    Raises:
      UserError: `seq_len` leaves no room for text.
      ValueError: unknown packing.
    """
    if seq_len < 4:
        raise UserError(f"data.seq_len={seq_len} leaves no room for text: a row needs at least 4 tokens")
    if packing not in choices("data.packing"):
        raise ValueError(f"packing is one of {', '.join(choices('data.packing'))}, not {packing!r}")
    offsets = np.asarray(store.offsets, np.int64)
    starts, lengths = offsets[:-1], np.diff(offsets)
    if texts is not None:
        starts, lengths = starts[texts], lengths[texts]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if packing == "stream":
        return _plan_stream(store, starts, lengths, seq_len)
    return _plan_documents(store, starts, lengths, seq_len, seed)


def _plan_stream(store: TokenArrays, starts: np.ndarray, lengths: np.ndarray, seq_len: int) -> RowPlan:
    """Cut the texts, joined by separators, on a fixed grid; a separator on an edge is the row's [SEP]."""
    room = seq_len - 2
    begins = np.cumsum(lengths + 1) - (lengths + 1)  # where each text starts in the joined stream
    ends = begins + lengths
    first = begins // room
    count = (ends - 1) // room - first + 1
    rows = np.repeat(first, count) + ramp(count, np.cumsum(count) - count)
    piece_begins = np.maximum(np.repeat(begins, count), rows * room)
    piece_ends = np.minimum(np.repeat(ends, count), (rows + 1) * room)
    # room >= 2 and no text is empty, so no row consists of separators alone.
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
    return RowPlan(
        store=store,
        starts=np.repeat(starts - begins, count) + piece_begins,
        lengths=(piece_ends - piece_begins).astype(np.int32),
        row_ptr=row_ptr,
        seq_len=seq_len,
        joined=True,
    )


def _plan_documents(store: TokenArrays, starts: np.ndarray, lengths: np.ndarray, seq_len: int, seed: int) -> RowPlan:
    """Cut long texts into pieces and pack the pieces into rows (`bin_packing.best_fit`)."""
    parts = list(_cut(np.asarray(store.word_starts), starts, lengths, seq_len - 2))
    starts = np.concatenate([part[0] for part in parts])
    lengths = np.concatenate([part[1] for part in parts]).astype(np.int32)
    del parts

    # Pieces by width; within a width in random order, so that neighbours in the corpus do not share a row.
    index_bits = max(1, len(starts).bit_length())
    index = np.arange(len(starts))
    keys = rng.shuffle_keys(rng.fold(rng.key(seed), index), index, index_bits)
    width_bits = int(seq_len).bit_length()
    keys &= np.uint64((1 << (64 - width_bits)) - 1)
    keys |= (lengths + 2).astype(np.uint64) << np.uint64(64 - width_bits)
    keys.sort()
    keys &= np.uint64((1 << index_bits) - 1)
    by_width = keys.astype(np.int64)
    counts = np.bincount(lengths + 2, minlength=seq_len + 1)
    ranks, row_ptr = fill_rows(counts, seq_len)
    order = by_width[ranks]
    del by_width, ranks  # not held while the pieces are copied: a corpus has many
    return RowPlan(store, starts[order], lengths[order], row_ptr, seq_len, joined=False)


def _cut(word_starts: np.ndarray, starts: np.ndarray, lengths: np.ndarray,
         room: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut texts into pieces of at most `room` tokens: full ones, ending before a word where one starts nearby."""
    slack, tail = min(_CUT_SLACK, room // 8), min(_MIN_TAIL, room // 4)
    long = lengths > room
    yield starts[~long], lengths[~long]
    at, end = starts[long], (starts + lengths)[long]
    while at.size > _FEW_TEXTS:  # one piece off every text that is still too long
        cut = np.minimum(at + room, end - tail)
        inside_word = np.arange(at.size)
        for back in range(slack + 1):
            found = word_starts[cut[inside_word] - back]
            cut[inside_word[found]] -= back
            inside_word = inside_word[~found]
            if not inside_word.size:
                break
        yield at, cut - at
        short = end - cut <= room
        yield cut[short], (end - cut)[short]
        at, end = cut[~short], end[~short]
    for begin, stop in zip(at.tolist(), end.tolist(), strict=True):
        cuts = np.fromiter(_cuts_of_one(word_starts, begin, stop, room, slack, tail), np.int64)
        yield cuts, np.diff(cuts, append=stop)


def _cuts_of_one(word_starts: np.ndarray, begin: int, stop: int, room: int, slack: int, tail: int) -> Iterator[int]:
    """Yield where the pieces of one text start, cut as `_cut` does."""
    yield begin
    while stop - begin > room:
        begin = min(begin + room, stop - tail)
        back = word_starts[begin - slack : begin + 1].tobytes().rfind(1)
        if back >= 0:
            begin += back - slack
        yield begin
