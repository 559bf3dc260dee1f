"""Where words start, for whole-word masking: the tokenizer's own pre-tokenization, refined.

The words are the tokenizer's pre-tokens (`Encoding.word_ids`), with three refinements:

* punctuation is its own word also where the pre-tokenizer leaves it glued ("hospital," under Metaspace);
* in scripts written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar), where a pre-token is a whole run,
  words are groups of about four characters of one script;
* a character is never cut: the byte-level pieces of one character, and its combining marks, stay together.

Two speeds. Most texts need only tables over token ids (`word_starts`). Texts with a script without spaces
also need the characters under the tokens (`refine`), whose offsets cost half as much as tokenization itself.

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

# Characters a word may have in a script without spaces; the mean Chinese, Japanese or Thai word has 2 to 4.
_GROUP = 4

# Character classes. Those from _HAN on belong to scripts without spaces.
_OTHER, _PUNCTUATION, _MARK, _SPACE, _HAN, _HIRAGANA, _KATAKANA, _THAI, _LAO, _KHMER, _MYANMAR = range(11)
_UNSPACED_RANGES = (
    (_HAN, "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"),
    (_HIRAGANA, "\u3041-\u309f"),
    (_KATAKANA, "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"),
    (_THAI, "\u0e00-\u0e7f"),
    (_LAO, "\u0e80-\u0eff"),
    (_KHMER, "\u1780-\u17ff"),
    (_MYANMAR, "\u1000-\u109f"),
)
_UNSPACED = re.compile("[" + "".join(ranges for _, ranges in _UNSPACED_RANGES) + "]")
# Byte-level pre-tokenizers split before every combining mark, which their expression takes for a symbol.
_UNSPACED_OR_MARKS = re.compile(
    _UNSPACED.pattern[:-1] + "\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u0dff]"
)


class WordTables(NamedTuple):
    """Facts about each token id of one tokenizer, all `[V]` bool."""

    punctuation: np.ndarray  # nothing but punctuation
    opens: np.ndarray  # starts with the mark of a space: a word starts here whatever the pre-tokenizer says
    blank: np.ndarray  # nothing but the mark of a space
    continues: np.ndarray  # starts inside a character: a UTF-8 continuation byte or a combining mark
    added: np.ndarray  # special and added tokens: words of their own
    byte_level: bool


def is_punctuation(char: str) -> bool:
    """Unicode punctuation, and the ASCII symbols (as BERT's own splitter has it)."""
    return ("!" <= char <= "~" and not char.isalnum()) or unicodedata.category(char).startswith("P")


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, for U+0100, U+0101, ...
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def token_bytes(backend: Any) -> list[bytes | None]:
    """The UTF-8 bytes that each token of a `tokenizers.Tokenizer` stands for, by its id; a space where it has the mark of one.

    None for special and added tokens and for ids that are not there. A byte-level token may be a part of a character.
    """
    return _token_bytes(backend, json.loads(backend.to_str()))


def _token_bytes(backend: Any, state: dict[str, Any]) -> list[bytes | None]:
    byte_level = _is_byte_level(state)
    prefix = state["model"].get("continuing_subword_prefix") or ""
    suffix = state["model"].get("end_of_word_suffix") or ""
    added = {token["id"] for token in state.get("added_tokens", [])}
    alphabet = byte_alphabet()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    found: list[bytes | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, index in vocabulary.items():
        if index in added:
            continue
        if byte_level and all(char in alphabet for char in token):
            found[index] = bytes(alphabet[char] for char in token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            found[index] = bytes([int(token[3:5], 16)])
        else:
            if prefix and token.startswith(prefix) and token != prefix:
                token = token[len(prefix) :]
            if suffix:
                token = token.removesuffix(suffix)
            found[index] = token.replace("▁", " ").encode("utf-8", "surrogatepass")
    return found


def _is_byte_level(state: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([state.get("pre_tokenizer"), state.get("decoder")])


def token_characters(backend: Any) -> np.ndarray:
    """`[V]` float32: the characters that each token stands for, white space not counted; 0 for special and added tokens.

    A character that lies in several byte-level tokens counts in the first of them, even if it is a wide space. So the tokens of a
    text add up to its characters.
    """
    return np.array([0 if raw is None else sum(byte & 0xC0 != 0x80 for byte in raw) - _blanks(raw) for raw in token_bytes(backend)],
                    np.float32)


def _blanks(raw: bytes) -> int:
    return sum(char.isspace() for char in raw.decode("utf-8", "ignore"))


def word_tables(backend: Any) -> WordTables:
    """Tables for a `tokenizers.Tokenizer`."""
    state = json.loads(backend.to_str())
    added = {token["id"] for token in state.get("added_tokens", [])}
    surfaces = _token_bytes(backend, state)
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
    return WordTables(*table, byte_level=_is_byte_level(state))


def needs_characters(text: str, tables: WordTables) -> bool:
    """True if the words of a text depend on its characters, so that `refine` has to be called."""
    return not text.isascii() and bool((_UNSPACED_OR_MARKS if tables.byte_level else _UNSPACED).search(text))


def word_starts(ids: np.ndarray, word_ids: np.ndarray, tables: WordTables) -> np.ndarray:
    """Marks the tokens at which a word starts.

    Args:
      ids: `[n]` token ids of one text, or of several after one another.
      word_ids: `[n]` `Encoding.word_ids` as integers, -1 for none.

    Returns:
      `[n]` bool. With several texts, the caller sets the first token of each.
    """
    starts = np.ones(len(ids), bool)
    if len(ids) < 2:
        return starts
    same = _same_pretoken(word_ids)
    here, before = ids[1:], ids[:-1]
    own = tables.punctuation | tables.added
    edge = own[here] | own[before]
    # "▁" alone before "(": the mark of the space goes with what follows it.
    edge &= ~(same & tables.blank[before])
    starts[1:] = (~same | tables.opens[here] | edge) & ~(tables.continues[here] & ~own[before])
    return starts


def _same_pretoken(word_ids: np.ndarray) -> np.ndarray:
    return (word_ids[1:] == word_ids[:-1]) & (word_ids[1:] >= 0)


def refine(
    text: str,
    ids: np.ndarray,
    word_ids: np.ndarray,
    offsets: np.ndarray,
    starts: np.ndarray,
    tables: WordTables,
) -> np.ndarray:
    """`starts` of one text, corrected by its characters: see the module's text for the rules.

    Args:
      offsets: `[n, 2]` characters of each token, from `Encoding.offsets`.
      starts: what `word_starts` gave for this text; not changed.
    """
    n = len(ids)
    if n < 2 or not text:
        return starts
    raw_class = _class_table()[np.minimum(_code_points(text), _CLASS_LIMIT - 1)]
    places = np.arange(len(text))
    # A combining mark is of the class of its base.
    base = np.maximum.accumulate(np.where(raw_class != _MARK, places, 0))
    classes = raw_class[base]
    # Characters that count towards a group; those before each place.
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
    refined[here] = ((starts[here] & ~same) | (starts[here] & _keeps(ids, tables)) | change) & ~inside
    run = np.maximum.accumulate(np.where(refined, np.arange(n), 0))
    group = (counted[first] - counted[first[run]]) // _GROUP
    new_group = (group[here] != group[before]) & (run[here] == run[before]) & (first_class[here] >= _HAN)
    refined[here] |= new_group & ~inside
    return refined


def _keeps(ids: np.ndarray, tables: WordTables) -> np.ndarray:
    own = tables.punctuation | tables.added
    return own[ids[1:]] | own[ids[:-1]] | tables.opens[ids[1:]]


_CLASS_LIMIT = 0x40000


@functools.lru_cache(maxsize=1)
def _class_table() -> np.ndarray:
    table = np.zeros(_CLASS_LIMIT, np.uint8)
    for name, ranges in _UNSPACED_RANGES:
        for low, high in re.findall(r"(.)(?:-(.))?", ranges):
            table[ord(low) : ord(high or low) + 1] = name
    for code in range(0x20000):  # no marks or punctuation above, but for tags
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
    """`ids` and `word_ids` (-1 for none) of a `tokenizers.Encoding`, both `[n]` int64."""
    words = [-1 if word is None else word for word in encoding.word_ids]
    return np.array(encoding.ids, np.int64), np.array(words, np.int64)


def split_words(text: str, tokenizer: Any) -> list[str]:
    """The words of a text as whole-word masking sees them; `tokenizer` is a fast transformers tokenizer."""
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
