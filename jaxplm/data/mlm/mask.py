"""BERT's masking (Devlin et al. 2019), exact in number and a pure function of (seed, step, row).

Of each row exactly round(rate × maskable) tokens are chosen; of those 80 % become the mask token, 10 % a
random token and 10 % stay. Whole-word masking chooses words instead, as many as fit the same number.

Tokens that were added to a vocabulary can be preferred. Each of them (or each word that holds one) is a candidate by
the toss of a coin, new for every key; candidates are chosen before all others, but get half of the number at most.
So a rare new token is masked in half of the draws and is context for others in the rest. If it were always masked, its
row of the embedding table would never be trained as an input.
"""

from dataclasses import dataclass

import numpy as np

from jaxplm.data import rng
from jaxplm.data.mlm.rows import Masked, PairRows, Rows, SpecialIds
from jaxplm.data.mlm.schedule import MaskRate
from jaxplm.data.rng import RowDraws

# Which random number is drawn; part of its coordinates.
_CHOOSE, _DEAL, _PHASE, _REPLACE, _TOSS, _CHOOSE_NEW = range(6)
_NONE = np.uint64((1 << 64) - 1)  # sorts after every real key


@dataclass(frozen=True, eq=False)
class Masking:
    """What is masked, and with what.

    Attributes:
      rate: share of the maskable tokens of a row that are chosen, by step.
      whole_word: choose whole words.
      special: ids of the special tokens.
      random_ids: [R] int32, the ids that random replacements are drawn from.
      prefer_from: tokens of this id and above are preferred, see above; None prefers none. The number of chosen tokens
        and what becomes of them stay the same.
    """

    rate: MaskRate
    whole_word: bool
    special: SpecialIds
    random_ids: np.ndarray
    prefer_from: int | None = None


def capacity(rate: float, seq_len: int) -> int:
    """Return K, the most tokens that are masked in a row of `seq_len`, two of which are always special."""
    return max(1, round(rate * (seq_len - 2)))


def mask_rows(rows: Rows | PairRows, masking: Masking, rate: float, capacity: int, draws: RowDraws) -> Masked:
    """Choose tokens of each row and replace them.

    Args:
      rows: b rows; what is not maskable ends a word.
      masking: how.
      rate: share of the maskable tokens of a row to choose, at this step.
      capacity: K, see the function of that name.
      draws: decide what is chosen and what becomes of it.

    Raises:
      ValueError: a row has more tokens to mask than `capacity`.
    """
    budget = np.rint(rate * np.count_nonzero(rows.maskable, axis=1)).astype(np.int64)  # [b], as Python's round
    if budget.max(initial=0) > capacity:
        raise ValueError(f"{budget.max()} tokens of a row to mask, but capacity for {capacity}")
    chosen = _choose(rows, masking, budget, draws)

    # The chosen places, row by row and ascending, and the number of each within its row.
    row, column = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    count = np.bincount(row, minlength=len(chosen))
    nth = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    positions = np.zeros((len(chosen), capacity), np.int32)
    labels = np.zeros_like(positions)
    weights = np.zeros(positions.shape, np.float32)
    positions[row, nth] = column
    labels[row, nth] = rows.input_ids[row, column]
    weights[row, nth] = 1.0

    rank = _deal(positions, count, draws(_DEAL))[row, nth]
    phase = rng.uniform(draws(_PHASE))
    # Systematic sampling: one random phase per row, then evenly spaced, so that a row's shares are within one
    # token of 80/10/10 and exact on average. `rank` is a random order, so no position is favoured.
    tenths = 10.0 * (rank + phase[row])
    masked = tenths < 8 * count[row]
    replaced = ~masked & (tenths < 9 * count[row])
    input_ids = rows.input_ids.copy()
    input_ids[row[masked], column[masked]] = masking.special.mask
    row, column = row[replaced], column[replaced]
    bits = rng.fold(draws(_REPLACE)[row], column)
    input_ids[row, column] = masking.random_ids[rng.below(bits, len(masking.random_ids))]
    return Masked(input_ids, positions, labels, weights)


def _choose(rows: Rows | PairRows, masking: Masking, budget: np.ndarray, draws: RowDraws) -> np.ndarray:
    """Return [b, L] bool: `budget` [b] tokens of each row, or as many of them as whole words fill."""
    maskable, word_starts = rows.maskable, rows.word_starts if masking.whole_word else None

    def choose(among: np.ndarray, budget: np.ndarray, row_keys: np.ndarray) -> np.ndarray:
        return (_choose_tokens(among, budget, row_keys) if word_starts is None
                else _choose_words(among, word_starts, budget, row_keys))

    if masking.prefer_from is None:
        return choose(maskable, budget, draws(_CHOOSE))
    new = _candidates(maskable & (rows.input_ids >= masking.prefer_from), maskable, word_starts, draws(_TOSS))
    first = choose(new, (budget + 1) // 2, draws(_CHOOSE_NEW))
    return first | choose(maskable & ~first, budget - np.count_nonzero(first, axis=1), draws(_CHOOSE))


def _random_order(at: np.ndarray, row_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle the places of each row that are True in `at` [b, L].

    Returns:
      sort keys [b, L], and those sorted; the places are in their low bits, what is not in `at` comes last.
    """
    places = np.arange(at.shape[1])
    keys = rng.shuffle_keys(rng.fold(row_keys[:, None], places), places, _index_bits(at.shape[1]))
    keys[~at] = _NONE
    return keys, np.sort(keys, axis=1)


def _index_bits(length: int) -> int:
    return length.bit_length()  # one more value than needed: a real key is never all ones


def _choose_tokens(maskable: np.ndarray, budget: np.ndarray, row_keys: np.ndarray) -> np.ndarray:
    """Return [b, L] bool: `budget` of each row's maskable tokens, or all, uniformly without replacement."""
    keys, in_order = _random_order(maskable, row_keys)
    budget = np.minimum(budget, np.count_nonzero(maskable, axis=1))
    last = np.take_along_axis(in_order, np.maximum(budget - 1, 0)[:, None], axis=1)
    return (keys <= last) & (budget > 0)[:, None] & maskable


def _candidates(new: np.ndarray, maskable: np.ndarray, word_starts: np.ndarray | None, row_keys: np.ndarray) -> np.ndarray:
    """Return [b, L] bool: half of the tokens that are `new` [b, L]; with `word_starts` half of the words that hold one, whole."""
    length = new.shape[1]
    if word_starts is not None:
        word = np.cumsum(_first_tokens(maskable, word_starts).reshape(-1))  # [b * L] the word that a token belongs to
        holds = np.zeros(word.max(initial=0) + 1, bool)
        holds[word[new.reshape(-1)]] = True
        new = holds[word].reshape(new.shape) & maskable
    rows, places = np.nonzero(new)
    if word_starts is not None:  # one toss per word, by the place of its first token
        starts = np.maximum.accumulate(np.where(_first_tokens(maskable, word_starts), np.arange(length), 0), axis=1)
        places = starts[rows, places]
    tossed = np.zeros_like(new)
    tossed[new] = rng.uniform(rng.fold(row_keys[rows], places)) < 0.5
    return tossed


def _first_tokens(maskable: np.ndarray, word_starts: np.ndarray) -> np.ndarray:
    """Return [b, L] bool: where words start; what is not maskable ends a word."""
    starts = maskable.copy()
    starts[:, 1:] &= word_starts[:, 1:] | ~maskable[:, :-1]
    return starts


def _choose_words(maskable: np.ndarray, word_starts: np.ndarray, budget: np.ndarray, row_keys: np.ndarray) -> np.ndarray:
    """Return [b, L] bool: whole words in random order, every one that still fits into what is left of the budget."""
    length = maskable.shape[1]
    starts = _first_tokens(maskable, word_starts)
    # A word's tokens are maskable and contiguous, so its length is their number up to the next word.
    flat_starts = np.flatnonzero(starts)
    before = np.cumsum(maskable.reshape(-1), dtype=np.int32)[flat_starts] - 1
    word_lengths = np.zeros(maskable.size + 1, np.int32)  # [b * L] by first token, and a 0 for what is none
    word_lengths[flat_starts] = np.diff(before, append=np.count_nonzero(maskable))

    _, in_order = _random_order(starts, row_keys)
    most = int(np.count_nonzero(starts, axis=1).max(initial=0))
    chosen = np.zeros(maskable.size, bool)
    left = budget.copy()
    # This many words use up nearly every budget. The other words are tried only in rows whose budget is not used up.
    block = int(budget.max(initial=0)) + 8
    for begin in range(0, most, block):
        rows = np.flatnonzero(left)
        keys = in_order[rows, begin : begin + block]
        place = (keys & np.uint64((1 << _index_bits(length)) - 1)).astype(np.int64) + rows[:, None] * length
        place[keys == _NONE] = maskable.size
        lengths = word_lengths[place]
        taken = _take_while_they_fit(lengths, left[rows])
        left[rows] -= np.where(taken, lengths, 0).sum(axis=1)
        of_word = lengths[taken]
        within = np.arange(of_word.sum()) - np.repeat(np.cumsum(of_word) - of_word, of_word)
        chosen[np.repeat(place[taken], of_word) + within] = True
    return chosen.reshape(maskable.shape)


def _take_while_they_fit(lengths: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return [b, n] bool: one after the other, each of the words (length 0: none) that fits into what is left [b].

    Each round takes the words up to the first that does not fit, then forgets those that never will. From the
    second round on the first candidate fits, so what is left shrinks: a few rounds, not one per word.
    """
    taken = np.zeros(lengths.shape, bool)
    candidate = (lengths > 0) & (lengths <= left[:, None])
    while candidate.any():
        total = np.cumsum(np.where(candidate, lengths, 0), axis=1)
        fits = candidate & (total <= left[:, None])
        taken |= fits
        left = left - np.where(fits, lengths, 0).sum(axis=1)
        candidate &= ~fits & (lengths <= left[:, None])
    return taken


def _deal(positions: np.ndarray, count: np.ndarray, row_keys: np.ndarray) -> np.ndarray:
    """Return [b, K] int: a random rank, 0 .. count - 1, for each of the chosen positions of a row."""
    nth = np.broadcast_to(np.arange(positions.shape[1]), positions.shape)
    unused = nth >= count[:, None]
    bits = _index_bits(positions.shape[1])
    keys = rng.shuffle_keys(rng.fold(row_keys[:, None], positions), nth, bits)
    keys[unused] = _NONE
    keys.sort(axis=1)
    dealt = (keys & np.uint64((1 << bits) - 1)).astype(np.int64)
    dealt[unused] = nth[unused]
    ranks = np.empty(positions.shape, np.int64)
    np.put_along_axis(ranks, dealt, nth, axis=1)
    return ranks
