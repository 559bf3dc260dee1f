"""Choice of installed fonts for a plot. matplotlib's own font has Latin, Greek and Cyrillic letters, but no Hangul."""

import re
from collections.abc import Iterable

DEFAULT = "DejaVu Sans"  # comes with matplotlib
_PLACEHOLDERS = "Last Resort"  # has a box for every character there is
_PLAIN = re.compile(r"sans|gothic", re.IGNORECASE)


def families_for(texts: Iterable[str]) -> list[str] | None:
    """Return the families to draw `texts` with: matplotlib's own and, where it lacks a character, one that has all the others.

    matplotlib takes each character from the first family of a list that has it, but does not know which installed ones do.

    Returns:
      The value of "font.family"; None if no installed font has all the missing characters.
    """
    from matplotlib import font_manager

    missing = {ord(letter) for text in texts for letter in text if not letter.isspace()}
    missing -= _characters(font_manager.findfont(DEFAULT))
    if not missing:
        return [DEFAULT]
    _add_new_fonts()
    regular = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal", "regular")]
    for font in sorted(regular, key=lambda font: (not _PLAIN.search(font.name), font.name)):
        if not font.name.startswith(_PLACEHOLDERS) and missing <= _characters(font.fname):
            return [DEFAULT, font.name]
    return None


def _add_new_fonts() -> None:
    """Tell matplotlib of fonts that were installed since it listed them, which it does once and keeps in a cache."""
    from matplotlib import font_manager

    listed = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in listed and _characters(path):
            font_manager.fontManager.addfont(path)


def _characters(path: str) -> set[int]:
    """Return the code points that a font file has."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or a format that it cannot draw (colour bitmaps)
        return set()
