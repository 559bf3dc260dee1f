"""Test texts that were trained on are counted."""

from jaxplm.data.labelled.overlap import Overlap, overlap


def test_same_texts_are_counted():
    train = ["The cat sat.", "Größe  zählt", "한국어 문장", "", "a longer text about cats"]
    test = ["the CAT\n sat.", "GRÖSSE zählt", "The cat sat", "a longer text", "", "The cat sat.", unicode_other_form("한국어 문장"), "new"]
    assert overlap(train, test) == Overlap(4, 8, ("the CAT\n sat.", "GRÖSSE zählt", unicode_other_form("한국어 문장")))
    assert overlap(iter(train), iter(test), examples=1) == Overlap(4, 8, ("the CAT\n sat.",))


def test_nothing_in_common():
    assert overlap(["a"], ["b", " "]) == Overlap(0, 2, ())
    assert overlap([], []) == Overlap(0, 0, ())


def unicode_other_form(text: str) -> str:
    import unicodedata

    assert unicodedata.normalize("NFD", text) != text
    return unicodedata.normalize("NFD", text)
