"""BERT's masking (Devlin et al. 2019), exact in number and a pure function of (seed, step, row).

Of each row exactly round(rate x maskable) tokens are chosen; of those 80 % become the mask token, 10 % a
random token and 10 % stay. Whole-word masking chooses words instead, as many as fit the same number.

Tokens that were added to a vocabulary can be preferred. Each of them (or each word that holds one) is a candidate by
the toss of a coin, new for every key; candidates are chosen before all others, but get half of the number at most.
So a rare new token is masked in half of the draws, and is context for others in the rest: one that is always masked
would never train its row as an input.
"""

from typing import NamedTuple

import numpy as np

from jaxplm.data import rng

# Which random number is drawn; part of its coordinates.
_CHOOSE, _DEAL, _PHASE, _REPLACE, _TOSS, _CHOOSE_NEW = range(6)
_NONE = np.uint64((1 << 64) - 1)  # sorts after every real key


class Masked(NamedTuple):
    """Masked rows and what the head has to guess; see `jaxplm.data.batch.Batch`."""

    input_ids: np.ndarray  # [b, L] int32
    positions: np.ndarray  # [b, K] int32, ascending, unused slots at the end
    labels: np.ndarray  # [b, K] int32
    weights: np.ndarray  # [b, K] float32


def capacity(rate: float, seq_len: int) -> int:
    """K: the most tokens that are masked in a row of `seq_len`, two of which are always special."""
    return max(1, round(rate * (seq_len - 2)))


def mask_batch(
    input_ids: np.ndarray,
    maskable: np.ndarray,
    word_starts: np.ndarray | None,
    *,
    rate: float,
    capacity: int,
    mask_id: int,
    random_ids: np.ndarray,
    key: tuple[int, ...],
    row_index: np.ndarray,
    prefer_from: int | None = None,
) -> Masked:
    """Chooses and hides tokens.

    Args:
        input_ids: [b, L] int32.
        maskable: [b, L] bool, tokens that may be chosen.
        word_starts: [b, L] bool for whole-word masking, None for single tokens. What is not
            maskable ends a word.
        rate: share of the maskable tokens of a row to choose.
        capacity: K, see the function of that name.
        mask_id: id of the mask token.
        random_ids: [R] the ids that a random replacement is drawn from.
        key: what the choice depends on besides the row, such as (seed, step).
        row_index: [b] number of each row among all the rows of that key.
        prefer_from: ids from this one on are preferred, see above; None prefers none. The number of chosen tokens
            and what becomes of them stay the same.

    Raises:
        ValueError: a row has more tokens to mask than `capacity`.
    """
    budget = np.rint(rate * np.count_nonzero(maskable, axis=1)).astype(np.int64)  # [b], as Python's round
    if budget.max(initial=0) > capacity:
        raise ValueError(f"{budget.max()} tokens of a row to mask, but capacity for {capacity}")
    order_keys = rng.fold(rng.key(*key, _CHOOSE), row_index)

    def choose(among: np.ndarray, budget: np.ndarray, row_keys: np.ndarray) -> np.ndarray:
        return (_choose_tokens(among, budget, row_keys) if word_starts is None
                else _choose_words(among, word_starts, budget, row_keys))  # fmt: skip

    if prefer_from is None:
        chosen = choose(maskable, budget, order_keys)
    else:
        new = _candidates(maskable & (input_ids >= prefer_from), maskable, word_starts, rng.fold(rng.key(*key, _TOSS), row_index))
        first = choose(new, (budget + 1) // 2, rng.fold(rng.key(*key, _CHOOSE_NEW), row_index))
        chosen = first | choose(maskable & ~first, budget - np.count_nonzero(first, axis=1), order_keys)

    # The chosen places, row by row and ascending, and which slot of their row they take.
    rows, columns = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    count = np.bincount(rows, minlength=len(chosen))
    slots = np.arange(rows.size) - np.repeat(np.cumsum(count) - count, count)
    shape = (len(chosen), capacity)
    positions, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    positions[rows, slots] = columns
    labels[rows, slots] = input_ids[rows, columns]
    weights[rows, slots] = 1.0

    rank = _deal(positions, count, rng.fold(rng.key(*key, _DEAL), row_index))[rows, slots]
    phase = rng.uniform(rng.fold(rng.key(*key, _PHASE), row_index))
    # Systematic sampling: one random phase a row, then evenly spaced, so that a row's shares are within one
    # token of 80/10/10 and exact on average. `rank` is a random order, so no position is favoured.
    tenths = 10.0 * (rank + phase[rows])
    masked = tenths < 8 * count[rows]
    replaced = ~masked & (tenths < 9 * count[rows])
    out = input_ids.copy()
    out[rows[masked], columns[masked]] = mask_id
    rows, columns = rows[replaced], columns[replaced]
    bits = rng.fold(rng.fold(rng.key(*key, _REPLACE), row_index)[rows], columns)
    out[rows, columns] = random_ids[rng.below(bits, len(random_ids))]
    return Masked(out, positions, labels, weights)


def _random_order(at: np.ndarray, row_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shuffles the places of each row that are True in `at` [b, L].

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
    """[b, L] bool: `budget` of each row's maskable tokens, or all, uniformly without replacement."""
    keys, in_order = _random_order(maskable, row_keys)
    budget = np.minimum(budget, np.count_nonzero(maskable, axis=1))
    last = np.take_along_axis(in_order, np.maximum(budget - 1, 0)[:, None], axis=1)
    return (keys <= last) & (budget > 0)[:, None] & maskable


def _candidates(
    new: np.ndarray, maskable: np.ndarray, word_starts: np.ndarray | None, row_keys: np.ndarray
) -> np.ndarray:
    """[b, L] bool: half of the tokens that are `new` [b, L]; with `word_starts` half of the words that hold one, whole."""
    length = new.shape[1]
    if word_starts is not None:
        word = np.cumsum(_first_tokens(maskable, word_starts).reshape(-1))  # [b * L] the word that a token belongs to
        holds = np.zeros(word.max(initial=0) + 1, bool)
        holds[word[new.reshape(-1)]] = True
        new = holds[word].reshape(new.shape) & maskable
    rows, places = np.nonzero(new)
    if word_starts is not None:  # one toss a word, by the place of its first token
        starts = np.maximum.accumulate(np.where(_first_tokens(maskable, word_starts), np.arange(length), 0), axis=1)
        places = starts[rows, places]
    tossed = np.zeros_like(new)
    tossed[new] = rng.uniform(rng.fold(row_keys[rows], places)) < 0.5
    return tossed


def _first_tokens(maskable: np.ndarray, word_starts: np.ndarray) -> np.ndarray:
    """[b, L] bool: where words start, what is not maskable being the end of one."""
    starts = maskable.copy()
    starts[:, 1:] &= word_starts[:, 1:] | ~maskable[:, :-1]
    return starts


def _choose_words(
    maskable: np.ndarray, word_starts: np.ndarray, budget: np.ndarray, row_keys: np.ndarray
) -> np.ndarray:
    """[b, L] bool: whole words in random order, every one that still fits into what is left of the budget."""
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
    # So many words use up nearly every budget; the others are looked at only in rows where some is left.
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
    """[b, n] bool: one after the other, each of the words (length 0: none) that fits into what is left [b].

    Each round takes the words up to the first that does not fit, then forgets those that never will. From the
    second round on the first candidate fits, so what is left shrinks: a few rounds, not one a word.
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
    """[b, K] int: a random rank, 0 .. count - 1, for each of the chosen positions of a row."""
    slots = np.broadcast_to(np.arange(positions.shape[1]), positions.shape)
    unused = slots >= count[:, None]
    bits = _index_bits(positions.shape[1])
    keys = rng.shuffle_keys(rng.fold(row_keys[:, None], positions), slots, bits)
    keys[unused] = _NONE
    keys.sort(axis=1)
    dealt = (keys & np.uint64((1 << bits) - 1)).astype(np.int64)
    dealt[unused] = slots[unused]
    ranks = np.empty(positions.shape, np.int64)
    np.put_along_axis(ranks, dealt, slots, axis=1)
    return ranks
