"""Which installed fonts can draw a text. matplotlib's own has Latin, Greek and Cyrillic letters, but no Hangul."""

import re
from collections.abc import Iterable

DEFAULT = "DejaVu Sans"  # comes with matplotlib
_PLACEHOLDERS = "Last Resort"  # has a box for every character there is
_PLAIN = re.compile(r"sans|gothic", re.IGNORECASE)


def families(texts: Iterable[str]) -> list[str] | None:
    """The fonts to draw `texts` with, matplotlib's own first; None if no two of them have every character."""
    from matplotlib import font_manager

    missing = {ord(letter) for text in texts for letter in text if not letter.isspace()}
    missing -= _characters(font_manager.findfont(DEFAULT))
    if not missing:
        return [DEFAULT]
    regular = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal", "regular")]
    for font in sorted(regular, key=lambda font: (not _PLAIN.search(font.name), font.name)):
        if not font.name.startswith(_PLACEHOLDERS) and missing <= _characters(font.fname):
            return [DEFAULT, font.name]
    return None


def _characters(path: str) -> set[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # gone since matplotlib listed it, or of a kind that it cannot draw (colour bitmaps)
        return set()
