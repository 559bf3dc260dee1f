"""The picture in the README is the one that the script draws, and it names recipes that exist."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
FIGURE = runpy.run_path(str(ROOT / "docs" / "make_recipes_figure.py"))


@pytest.mark.parametrize(("language", "name"), [("en", "recipes.svg"), ("ko", "recipes.ko.svg")])
def test_figure_is_up_to_date(language: str, name: str) -> None:
    drawn = FIGURE["render"](language)
    assert (ROOT / "docs" / name).read_text("utf-8") == drawn, "run: python docs/make_recipes_figure.py"
    ElementTree.fromstring(drawn)
    recipes = re.findall(r"configs/\w+\.py", drawn)
    assert len(recipes) >= 4
    for recipe in recipes:
        assert (ROOT / recipe).exists()


def test_both_languages_say_the_same_things() -> None:
    english, korean = FIGURE["TEXTS"]["en"], FIGURE["TEXTS"]["ko"]
    assert english.keys() == korean.keys()
    for name, words in english.items():
        assert type(words) is type(korean[name])
        if isinstance(words, tuple):
            assert words[1] == korean[name][1]  # the same file
