"""Find where words start, for whole-word masking: by the tokenizer's own pre-tokenization, refined.

The words are the tokenizer's pre-tokens (`Encoding.word_ids`), with three refinements:

* Punctuation is a word of its own also where the pre-tokenizer leaves it attached ("hospital," under Metaspace).
* In scripts written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar), where a pre-token is a whole run, words are
  groups of about four characters of one script.
* A character is never cut: the byte-level pieces of one character, and its combining marks, stay together.

Most texts need only tables over token ids (`word_starts`). Texts with a script without spaces also need the characters
under the tokens (`refine`), whose offsets cost half as much as tokenization itself.

>>> split_words("hospital, (COVID-19)", tokenizer)
['hospital', ',', '(', 'COVID', '-', '19', ')']
"""

import functools
import itertools
import json
import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np

from jaxplm.data.corpus.token_text import is_byte_level, token_bytes

# Characters that a word may have in a script without spaces; the mean Chinese, Japanese or Thai word has 2 to 4.
_GROUP = 4

# Character classes. Those from _HAN on belong to scripts without spaces.
_OTHER, _PUNCTUATION, _MARK, _SPACE, _HAN, _HIRAGANA, _KATAKANA, _THAI, _LAO, _KHMER, _MYANMAR = range(11)
UNSPACED_RANGES = (
    (_HAN, "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"),
    (_HIRAGANA, "\u3041-\u309f"),
    (_KATAKANA, "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    (_THAI, "\u0e00-\u0e7f"),
    (_LAO, "\u0e80-\u0eff"),
    (_KHMER, "\u1780-\u17ff"),
    (_MYANMAR, "\u1000-\u109f"),
)
_UNSPACED = re.compile("[" + "".join(ranges for _, ranges in UNSPACED_RANGES) + "]")
# Byte-level pre-tokenizers split before every combining mark, which their expression takes to be a symbol.
_UNSPACED_OR_MARKS = re.compile(_UNSPACED.pattern[:-1] + "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0dff]")


class WordTables(NamedTuple):
    """Facts about each token of one tokenizer, by its id.

    Attributes:
      punctuation: `[V]` bool: it is nothing but punctuation.
      opens: `[V]` bool: it starts with the mark of a space, so a word starts here whatever the pre-tokenizer says.
      blank: `[V]` bool: it is nothing but the mark of a space.
      continues: `[V]` bool: it starts inside a character, with a UTF-8 continuation byte or a combining mark.
      added: `[V]` bool: it is a special or added token, which is a word of its own.
      byte_level: the vocabulary is one of bytes.
    """

    punctuation: np.ndarray
    opens: np.ndarray
    blank: np.ndarray
    continues: np.ndarray
    added: np.ndarray
    byte_level: bool


def is_punctuation(char: str) -> bool:
    """Return whether a character is Unicode punctuation or an ASCII symbol, as in BERT's own splitter."""
    return ("!" <= char <= "~" and not char.isalnum()) or unicodedata.category(char).startswith("P")


def word_tables(backend: Any) -> WordTables:
    """Return the tables of a `tokenizers.Tokenizer`."""
    state = json.loads(backend.to_str())
    added = {token["id"] for token in state.get("added_tokens", [])}
    surfaces = token_bytes(backend)
    table = np.zeros((5, len(surfaces)), bool)
    table[4, sorted(added)] = True
    for index, raw in enumerate(surfaces):
        if raw is None:
            continue
        surface = raw.decode("utf-8", "replace")
        word = surface.strip()
        table[0, index] = bool(word) and all(map(is_punctuation, word)) and "\ufffd" not in word
        table[1, index] = surface[:1].isspace()
        table[2, index] = not word
        table[3, index] = 0x80 <= raw[0] < 0xC0 if raw else False
        table[3, index] |= bool(surface) and unicodedata.category(surface[0]).startswith("M")
    return WordTables(*table, byte_level=is_byte_level(state))


def needs_characters(text: str, tables: WordTables) -> bool:
    """Return whether the words of a text depend on its characters, so that `refine` has to be called."""
    return not text.isascii() and bool((_UNSPACED_OR_MARKS if tables.byte_level else _UNSPACED).search(text))


def word_starts(ids: np.ndarray, word_ids: np.ndarray, tables: WordTables) -> np.ndarray:
    """Return the tokens at which a word starts, `[n]` bool.

    With several texts, the caller sets the first token of each.

    Args:
      ids: `[n]` token ids of one text, or of several one after the other.
      word_ids: `[n]` `Encoding.word_ids` as integers, -1 for none.
      tables: of the tokenizer.
    """
    starts = np.ones(len(ids), bool)
    if len(ids) < 2:
        return starts
    same = _same_pretoken(word_ids)
    here, before = ids[1:], ids[:-1]
    own = tables.punctuation | tables.added
    edge = own[here] | own[before]
    # "▁" alone before "(": the mark of the space belongs to what follows it.
    edge &= ~(same & tables.blank[before])
    starts[1:] = (~same | tables.opens[here] | edge) & ~(tables.continues[here] & ~own[before])
    return starts


def _same_pretoken(word_ids: np.ndarray) -> np.ndarray:
    return (word_ids[1:] == word_ids[:-1]) & (word_ids[1:] >= 0)


def refine(
    text: str, ids: np.ndarray, word_ids: np.ndarray, offsets: np.ndarray, starts: np.ndarray, tables: WordTables
) -> np.ndarray:
    """Return the word starts of one text, `[n]` bool, corrected by its characters.

    This module's docstring has the rules.

    Args:
      text: whose tokens these are.
      ids, word_ids: as for `word_starts`.
      offsets: `[n, 2]` characters of each token, from `Encoding.offsets`.
      starts: what `word_starts` gave for this text; not changed.
      tables: of the tokenizer.
    """
    n = len(ids)
    if n < 2 or not text:
        return starts
    raw_class = _class_table()[np.minimum(_code_points(text), _CLASS_LIMIT - 1)]
    places = np.arange(len(text))
    # A combining mark has the class of its base.
    base = np.maximum.accumulate(np.where(raw_class != _MARK, places, 0))
    classes = raw_class[base]
    # How many characters up to each place count towards the size of a group.
    counted = np.cumsum(raw_class != _MARK)
    next_visible = np.minimum.accumulate(np.where(raw_class != _SPACE, places, len(text))[::-1])[::-1]

    begin, end = offsets[:, 0], offsets[:, 1]
    first = np.clip(next_visible[np.clip(begin, 0, len(text) - 1)], 0, np.maximum(end - 1, 0))
    last = np.maximum(end - 1, first)
    first_class, last_class = classes[first], classes[last]

    here, before = slice(1, None), slice(None, -1)
    inside = (begin[here] < np.maximum.accumulate(end)[before]) & (end[here] > begin[here])
    inside |= raw_class[first[here]] == _MARK
    touching = first[here] == end[before]
    same = _same_pretoken(word_ids)
    # A pre-token that ends at a combining mark was cut by the pre-tokenizer inside a word.
    same |= touching & (raw_class[last[before]] == _MARK) & (first_class[here] == last_class[before])
    blank = tables.blank[ids]

    change = (first_class[here] != last_class[before]) & ~blank[before]
    change &= (first_class[here] >= _HAN) | (last_class[before] >= _HAN) | (first_class[here] == _PUNCTUATION)
    refined = np.ones(n, bool)
    refined[here] = ((starts[here] & ~same) | (starts[here] & _certain_starts(ids, tables)) | change) & ~inside
    run = np.maximum.accumulate(np.where(refined, np.arange(n), 0))
    group = (counted[first] - counted[first[run]]) // _GROUP
    new_group = (group[here] != group[before]) & (run[here] == run[before]) & (first_class[here] >= _HAN)
    refined[here] |= new_group & ~inside
    return refined


def _certain_starts(ids: np.ndarray, tables: WordTables) -> np.ndarray:
    """Return which tokens but the first start a word by the tables alone, `[n - 1]` bool."""
    own = tables.punctuation | tables.added
    return own[ids[1:]] | own[ids[:-1]] | tables.opens[ids[1:]]


_CLASS_LIMIT = 0x40000


@functools.lru_cache(maxsize=1)
def _class_table() -> np.ndarray:
    """Return the class of each code point below the limit, uint8."""
    table = np.zeros(_CLASS_LIMIT, np.uint8)
    for name, ranges in UNSPACED_RANGES:
        for low, high in re.findall(r"(.)(?:-(.))?", ranges):
            table[ord(low) : ord(high or low) + 1] = name
    for code in range(0x20000):  # above, there are no marks or punctuation except tags
        char = chr(code)
        if char.isspace():
            table[code] = _SPACE
        elif unicodedata.category(char).startswith("M"):
            table[code] = _MARK
        elif is_punctuation(char):
            table[code] = _PUNCTUATION
    return table


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def encoding_arrays(encoding: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return `ids` and `word_ids` (-1 for none) of a `tokenizers.Encoding`, both `[n]` int64."""
    words = [-1 if word is None else word for word in encoding.word_ids]
    return np.array(encoding.ids, np.int64), np.array(words, np.int64)


def split_words(text: str, tokenizer: Any) -> list[str]:
    """Return the words of a text as whole-word masking sees them; `tokenizer` is a fast transformers tokenizer."""
    backend = tokenizer.backend_tokenizer
    tables = word_tables(backend)
    encoding = backend.encode(text, add_special_tokens=False)
    ids, word_ids = encoding_arrays(encoding)
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    starts = word_starts(ids, word_ids, tables)
    if needs_characters(text, tables):
        starts = refine(text, ids, word_ids, offsets, starts, tables)
    edges = [*np.flatnonzero(starts).tolist(), len(ids)]
    words = (text[offsets[a:b, 0].min() : offsets[a:b, 1].max()] for a, b in itertools.pairwise(edges))
    return [word.strip() for word in words if word.strip()]
