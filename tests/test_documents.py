"""Documents against the repository: links, files, fields and commands that they name; the two languages; the generated page."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from jaxplm.config import field_infos
from jaxplm.main import RECIPES

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "RESULTS.md"])
DOCUMENTS = [path for path in DOCUMENTS if "_build" not in path.parts]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
# Pages that a Korean page follows heading by heading; its index and its pages on fields and Python are shorter.
TRANSLATED = sorted({path.name for path in (ROOT / "docs" / "ko").glob("*.md")} - {"index.md", "fields.md", "python.md"})
# Words that were written here for years in the place of plain ones.
# Pages that make files of their own; tests of their own write and run these.
ADDS_SOMETHING = ("docs/extend/recipe.md", "docs/extend/task_kind.md")
DIALECT = re.compile(r"\b(anew|made again|goes on|rows a step|tokens a (row|second)|texts a (row|step)|steps a )\b")


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose(name: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```\s*$", "", text(name), flags=re.M | re.S)


def code(name: str) -> list[str]:
    """The blocks of commands."""
    return re.findall(r"^ *```bash\n(.*?)^ *```", text(name), flags=re.M | re.S)


def headings(name: str) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#{1,6}) +(.*?)\s*$", prose(name), flags=re.M)]


def anchors(name: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found: dict[str, int] = {}
    for _, title in headings(name):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {slug if not times else f"{slug}-{times}" for slug, last in found.items() for times in range(last + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_links_inside_the_repository_resolve(name: str) -> None:
    broken = []
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", prose(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(file.resolve().relative_to(ROOT).as_posix()):
            broken.append(target)
    assert not broken, f"{name} has links that lead nowhere: {broken}"


@pytest.mark.parametrize("name", NAMES)
def test_fields_and_recipes_that_are_named_exist(name: str) -> None:
    sections = sorted({field.partition(".")[0] for field in field_infos() if "." in field})
    named = re.findall(r"--config\.([\w.]+)", text(name))
    if name not in ("CHANGELOG.md", "benchmarks/RESULTS.md"):  # these also speak of other times
        for quoted in re.findall(r"`([^`\n]+)`", prose(name)):
            named += re.findall(rf"(?<![\w./])((?:{'|'.join(sections)})\.[a-z]\w*)(?![\w./(])", quoted)
    files = {one for one in named if one.endswith((".safetensors", ".conll", ".jsonl", ".tsv", ".txt"))}
    mistake = {"data.sep_len"}  # what a message in the troubleshooting page is about
    missing = sorted(set(named) - set(field_infos()) - files - mistake)
    assert not missing, f"{name} names fields that do not exist: {missing}"
    recipes = set(re.findall(r"--config=(?:configs/)?(\w+)(?:\.py)?\b", text(name)))
    if name not in ADDS_SOMETHING:
        assert not recipes - set(RECIPES), f"{name} names recipes that do not exist"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("CHANGELOG.md", *ADDS_SOMETHING)])
def test_files_of_the_repository_that_are_named_exist(name: str) -> None:
    there = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if not {".venv", "_build"} & set(path.parts)]
    missing = [file for file in re.findall(r"`([\w/]+\.py)`", prose(name))
               if not any(path == file or path.endswith(f"/{file}") for path in there)]
    missing += [file for file in re.findall(r"`((?:tests|launch|benchmarks)/[\w./]+\.\w+)`", prose(name)) if not (ROOT / file).exists()]
    assert not missing, f"{name} names files that do not exist"


@pytest.mark.parametrize("name", NAMES)
def test_words_are_plain(name: str) -> None:
    found = [match[0] for match in DIALECT.finditer(text(name))]
    assert not found, f"{name}: write 'per' and not 'a', 'recomputed', 'resumes', 'again'"


def test_readmes_are_short_and_the_same() -> None:
    english, korean = "README.md", "README.ko.md"
    for name in (english, korean):
        assert text(name).count("\n") <= 150, f"{name}: details belong into docs/"
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(korean)]
    assert code(english) == code(korean)
    assert [line.count("|") for line in tables(english)] == [line.count("|") for line in tables(korean)]


def tables(name: str) -> list[str]:
    return [line for line in prose(name).split("\n") if line.startswith("|")]


@pytest.mark.parametrize("page", TRANSLATED)
def test_korean_pages_follow_the_english_ones(page: str) -> None:
    english, korean = f"docs/{page}", f"docs/ko/{page}"
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(korean)]
    assert len(tables(english)) == len(tables(korean))
    assert len(code(english)) == len(code(korean))


def test_korean_field_page_has_every_field_once() -> None:
    named = re.findall(r"^\| `([\w.]+)` \|", text("docs/ko/fields.md"), flags=re.M)
    assert sorted(named) == sorted(field_infos())


def test_field_reference_is_up_to_date() -> None:
    path = ROOT / "docs" / "field_reference.py"
    spec = importlib.util.spec_from_file_location("field_reference", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert text("docs/fields.md") == module.render(), "run: python docs/field_reference.py"

