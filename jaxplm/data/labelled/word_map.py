"""Which token predicts each word of a labelled sentence, and the tags of words from the tags of tokens.

Pre-split words are predicted by their first token (Devlin et al. 2019). Where the tokens of the data are characters, a
token of the model may stand for several of them: it has the tag of the first one, and the others continue it. White space has no
token, among words or characters.
"""

from dataclasses import dataclass

import numpy as np

from jaxplm.data.labelled.encodings import Encoded
from jaxplm.data.labelled.examples import Examples

# How a word gets its tag.
OWN = 0  # that of its token
CONTINUED = 1  # that of its token, which has an earlier word too: I- in place of B-
NONE = 2  # the word has no token: O
GAP = 3  # white space has no token: inside an entity if the words around it are, else `WordMap.space`


@dataclass(frozen=True, eq=False)
class WordMap:
    """W words of n sentences.

    Attributes:
      offsets: [n + 1] int64; sentence i has the words offsets[i] .. offsets[i + 1] - 1.
      token: [W] int64, the token (of all T of the set) that predicts each word, chosen in the window where it has most
        context on both sides; -1 where there is none.
      how: [W] uint8: `OWN`, `CONTINUED`, `NONE` or `GAP`.
      space: the tag of white space outside entities.
    """

    offsets: np.ndarray
    token: np.ndarray
    how: np.ndarray
    space: str = "O"

    def tags(self, names: tuple[str, ...], predicted: np.ndarray) -> list[list[str]]:
        """Return the tags of every sentence's words.

        Args:
          names: C names of tags.
          predicted: [T] integers, the tag that the model gives each token of the set; only those in `token` are read.
        """
        inside = tuple("I" + name[1:] if name[:2] == "B-" or name == "B" else name for name in names)
        tags = np.full(len(self.token), "O", object)
        for how, called in ((OWN, names), (CONTINUED, inside)):
            here = np.flatnonzero(self.how == how)
            tags[here] = np.array(called, object)[predicted[self.token[here]]]
        gaps = self.how == GAP
        tags[gaps] = self.space
        sentence = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        words = np.flatnonzero(~gaps)
        place = np.searchsorted(words, np.flatnonzero(gaps))
        for gap, next_word in zip(np.flatnonzero(gaps).tolist(), place.tolist(), strict=True):
            if 0 < next_word < len(words) and sentence[words[next_word - 1]] == sentence[gap] == sentence[words[next_word]]:
                before, after = str(tags[words[next_word - 1]]), str(tags[words[next_word]])
                if _continues(before, after):
                    tags[gap] = "I" + after[1:]
        flat = tags.tolist()
        return [flat[begin:end] for begin, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)]


def _continues(before: str, after: str) -> bool:
    """Return whether two words in a row are of one entity, as their tags say."""
    return after[:2] in ("I", "I-", "E", "E-") and before[:2] in ("B", "B-", "I", "I-") and before[1:] == after[1:]


def map_words(examples: Examples, encoded: Encoded, overlap: int, room: int) -> tuple[WordMap, np.ndarray]:
    """Find the token of each word.

    Args:
      examples: sentences as lists of words.
      encoded: their windows, of which neighbours share `overlap` tokens; windows of the joined text if words are characters.
      room: tokens of the text in a full window.

    Returns:
      The map, and [T] int64: the word whose label each token learns, -1 for tokens that learn nothing. A word is learned once,
      where it is predicted, however many windows hold it.
    """
    assert examples.tokens is not None and encoded.word_ids is not None
    assert encoded.sequence_ids is not None and encoded.chars is not None
    counts = np.fromiter(map(len, examples.tokens), np.int64, len(examples))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])

    # Tokens of the text: their index in T, their unit, and their number in the text as if it had one window.
    token = np.flatnonzero(encoded.sequence_ids == 0)
    unit = np.repeat(np.arange(len(encoded.example)), encoded.lengths)[token]
    example = encoded.example[unit]
    nth_window = np.arange(len(encoded.example)) - np.searchsorted(encoded.example, encoded.example)
    sizes = np.bincount(unit, minlength=len(encoded.example))
    within = np.arange(len(token)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    number = nth_window[unit] * (room - overlap) + within
    context = np.minimum(within, sizes[unit] - 1 - within)

    how = np.full(total, GAP, np.uint8)
    if not examples.characters:
        how[[bool(word.strip()) for words in examples.tokens for word in words]] = NONE
    if examples.characters:
        word, at, first = _characters(examples, encoded.chars[token], example, offsets)
    else:
        first = word = offsets[example] + encoded.word_ids[token]
        at = np.arange(len(token))

    # Of the tokens of a word the first counts; of its places in several windows, the one with most context.
    earliest = np.full(total, np.iinfo(np.int64).max)
    np.minimum.at(earliest, word, number[at])
    chosen = number[at] == earliest[word]
    word, at = word[chosen], at[chosen]
    best = np.lexsort((at, -context[at], word))
    best = best[np.diff(word[best], prepend=-1) > 0]
    where = np.full(total, -1, np.int64)
    where[word[best]] = token[at[best]]
    how[word[best]] = np.where(first[at[best]] == word[best], OWN, CONTINUED)
    labelled = np.full(len(encoded.ids), -1, np.int64)
    labelled[token[at[best]]] = first[at[best]]
    return WordMap(offsets, where, how, examples.reading.space or "O"), labelled


def _characters(examples: Examples, chars: np.ndarray, example: np.ndarray,
                offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of (word, token of the text that stands for the word's first character), of text whose words are characters.

    Returns:
      word [P] and token [P] of the pairs; [tokens] the word of each token's first character that is not white space, -1
      where there is none.
    """
    assert examples.tokens is not None
    words = [word for tokens in examples.tokens for word in tokens]
    widths = np.fromiter(map(len, words), np.int64, len(words))
    word_begin = np.cumsum(widths) - widths  # in the text of all sentences joined
    text_begin = np.concatenate([word_begin, [widths.sum()]])[offsets[:-1]]
    text = "".join(words)
    visible = np.array([not char.isspace() for char in text], bool)
    places = np.flatnonzero(visible)
    word_of = np.repeat(np.arange(len(words)), widths)

    begin, end = text_begin[example] + chars[:, 0], text_begin[example] + chars[:, 1]
    skip = np.searchsorted(places, begin)
    found = skip < np.searchsorted(places, end)
    first = np.full(len(chars), -1, np.int64)
    first[found] = word_of[places[skip[found]]]

    # The first character of each word that is not white space, and the tokens that stand for it.
    head = np.zeros(len(text), bool)
    head[places[np.diff(word_of[places], prepend=-1) > 0]] = True
    spans = end - begin
    at = np.repeat(np.arange(len(chars)), spans)
    place = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans - begin, spans)
    hit = head[place]
    return word_of[place[hit]], at[hit], first
