"""The recipe that the documentation adds: its files are written as the page has them, and its command is run."""

import json
import re
import shutil
import sys

import pytest
from commands import ROOT
from messages import assert_refusal, assert_says
from pages import DOCS

import jaxplm.recipes
from jaxplm import main


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The files of the page below a directory, and the line in the table."""
    page = (DOCS / "extend" / "recipe.md").read_text("utf-8")
    files = re.findall(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    assert len(files) == 4
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name, content in files:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    [(name, folder)] = re.findall(r'The line in `RECIPES` is `"(\w+)": "(\w+)"`', page)
    monkeypatch.setitem(main.RECIPES, name, folder)
    monkeypatch.setattr(jaxplm.recipes, "__path__", [*jaxplm.recipes.__path__, str(tmp_path / "jaxplm" / "recipes")])
    monkeypatch.setattr(main, "config_folder", lambda: tmp_path / "configs")
    monkeypatch.setenv("JAXPLM_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    for module in [module for module in sys.modules if module.startswith("jaxplm.recipes.count")]:
        del sys.modules[module]


def test_the_recipe_of_the_documentation_runs(added, capsys):
    (added / "texts.txt").write_text("one text\nand another one\n")
    command = ["jaxplm", "--config=count", f"--workdir={added / 'run'}", f"--config.data.train={added / 'texts.txt'}"]
    assert main.main(command) == 0
    found = json.loads((added / "run" / "tokens.json").read_text())
    assert found["texts"] == 2 and found["tokens"] >= 5 and found["command"] == main.command_line(command)
    capsys.readouterr()
    assert main.main(command) == 0
    assert_says(capsys.readouterr().out, "finished")


def test_its_mistakes_are_answered_by_its_own_rules(added, capsys):
    assert main.main(["jaxplm", "--config=count", "--config.data.train="]) == 2
    assert_refusal(capsys.readouterr().err, "data.train")


def test_its_help_has_the_fields_that_it_reads(added, capsys):
    assert main.main(["jaxplm", "--config=count", "--help"]) == 0
    page = capsys.readouterr().out
    assert "data.max_rows" in page and "train.steps" not in page
    assert main.main(["jaxplm", "--help"]) == 0
    assert "Count the tokens of a corpus" in capsys.readouterr().out
