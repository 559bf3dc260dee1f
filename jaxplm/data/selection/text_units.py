"""Cut texts into units that n-grams are made of: words, and single characters of scripts without spaces.

A text is normalized first: NFKC, case folded, without soft hyphens and other invisible characters. Punctuation is no unit, so two
copies of a sentence agree whatever their quotation marks. A word is a run of letters, digits and their marks; in Korean that is the
eojeol, what stands between spaces. Han, kana, Thai, Lao, Khmer and Myanmar have no spaces. Groups of their characters would begin at
other places where the text around them differs, so each character with its marks is a unit, and four of them weigh as much as a word.

>>> split_units("Der Straßen-Lärm, 東京タワー")
['der', 'strassen', 'lärm', '東', '京', 'タ', 'ワ', 'ー']
"""

import functools
import re
import sys
import unicodedata

from jaxplm.data.corpus.words import UNSPACED_RANGES

_CHARACTERS = 4  # as in `jaxplm.data.corpus.words`: the mean word of these scripts has 2 to 4

_ASCII = re.compile("[a-z0-9]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]+")
_UNSPACED_CLASS = "".join(ranges for _, ranges in UNSPACED_RANGES)
_UNSPACED = re.compile(f"[{_UNSPACED_CLASS}]")


def normalized(text: str) -> str:
    """Return a text in NFKC, case folded, without invisible characters."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()))


def split_units(text: str) -> list[str]:
    """Return the units of a text; this module's docstring has the rules."""
    text = normalized(text)
    if text.isascii():
        return _ASCII.findall(text)
    words = _patterns().word.findall(text)
    if not _UNSPACED.search(text):
        return words
    return [unit for word in words for unit in (_patterns().unit.findall(word) if _UNSPACED.search(word) else (word,))]


def weight(unit: str) -> int:
    """Return the weight of a unit in quarters of a word."""
    return 1 if not unit.isascii() and _UNSPACED.match(unit) else _CHARACTERS


def word_weight(words: int) -> int:
    """Return the weight of so many words, as `weight` counts it."""
    return words * _CHARACTERS


class _Patterns:
    def __init__(self) -> None:
        marks = "".join(_mark_ranges())
        self.word = re.compile(rf"[^\W_][^\W_{marks}]*(?:[{marks}]+[^\W_{marks}]*)*")
        self.unit = re.compile(f"[{_UNSPACED_CLASS}][{marks}]*|[^{_UNSPACED_CLASS}]+")


@functools.cache
def _patterns() -> _Patterns:
    return _Patterns()


def _mark_ranges() -> list[str]:
    """Return ranges of a regular expression over all combining marks, which `\\w` does not have."""
    ranges, first = [], None
    for code in range(0x300, sys.maxunicode + 1):
        is_mark = unicodedata.category(chr(code)).startswith("M")
        if is_mark and first is None:
            first = code
        elif not is_mark and first is not None:
            ranges.append(f"{chr(first)}-{chr(code - 1)}")
            first = None
        if code == 0x20000 and first is None:  # above, marks are the variation selectors alone
            ranges.append("\U000e0100-\U000e01ef")
            break
    return ranges
