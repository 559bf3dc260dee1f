"""The report of a comparison as files: what is in them, in both languages, and that data cannot break them."""

import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import comparison_examples as examples
import pytest
from plot_layout import laid_out

from jaxplm.reporting.comparison import wording, write
from jaxplm.reporting.comparison.comparison import Comparison
from jaxplm.reporting.comparison.standing import standing
from jaxplm.reporting.tables import one_line

VOID = {"meta", "input", "br", "hr", "img", "link"}
PACKAGE = Path(wording.__file__).parent


class Element(SimpleNamespace):
    """One element. Its parents are not printed, as SimpleNamespace would."""

    def __repr__(self) -> str:
        return f"<{self.tag} {self.attributes}>"


class Page(HTMLParser):
    """A parsed page: its elements in order, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {[one.tag for one in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice: {attrs}"
        found = Element(tag=tag, attributes=dict(attrs), text="", parents=[*self.open], children=[])
        if self.open:
            self.open[-1].children.append(found)
        self.elements.append(found)
        if tag not in VOID:
            self.open.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1].tag == tag, f"</{tag}> closes {[one.tag for one in self.open]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for one in self.open:
            one.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [one for one in self.elements if one.tag == tag and attributes.items() <= one.attributes.items()]


Written = SimpleNamespace


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """A function that writes the reports of an example once and returns them."""
    small = examples.comparison(seeds=2, methods=("finetune",), energy=False, names=examples.FEW)
    made = {
        "whole": lambda: examples.comparison(names=examples.FEW),
        "hostile": lambda: examples.hostile(small),
        "running": lambda: examples.running(small),
    }
    found: dict[str, Written] = {}

    def get(name: str) -> Written:
        if name not in found:
            comparison: Comparison = made[name]()
            workdir = tmp_path_factory.mktemp(name)
            with laid_out() as layout:
                write.write_reports(workdir, comparison)
            text = (workdir / "report.html").read_text("utf-8")
            found[name] = Written(
                comparison=comparison,
                workdir=workdir,
                html=text,
                page=Page(text),
                layout=layout,
                en=(workdir / "report.md").read_text("utf-8"),
                ko=(workdir / "report.ko.md").read_text("utf-8"),
            )
        return found[name]

    return get


def test_every_way_is_in_every_report(written) -> None:
    report = written("whole")
    names = Counter(
        one.text for one in report.page.all("bdi") if any(up.attributes.get("id") == "results" for up in one.parents)
    )
    assert names == Counter(way.name for way in report.comparison.ways)
    for text in (report.en, report.ko):
        rows = [line for line in text.split("\n") if line.startswith("| ")]
        for way in report.comparison.ways:
            assert any(row.startswith(f"| {one_line(way.name)} (") for row in rows), way.name


def test_the_page_has_both_languages_of_everything(written) -> None:
    page = written("whole").page
    texts = [one for one in page.elements if "data-l" in one.attributes]
    assert len(texts) > 100
    for one in texts:
        siblings = [other for other in one.parents[-1].children if "data-l" in other.attributes]
        assert [other.attributes["lang"] for other in siblings] == ["en", "ko"] * (len(siblings) // 2), one.parents[
            -1
        ].text
    assert all(
        re.search("[가-힣]", one.text) or not re.search("[A-Za-z]{4}", one.text)
        for one in texts
        if one.attributes["lang"] == "ko"
    )
    for text in (one.text for one in texts if one.attributes["lang"] == "en"):
        assert not re.search("[가-힣]", text), text


@pytest.mark.parametrize("name", ["whole", "hostile", "running"])
def test_the_markdown_reports_have_the_same_sections_and_tables(written, name: str) -> None:
    report = written(name)

    def shape(text: str) -> list[str]:
        lines = [line for line in text.split("\n") if line.startswith(("#", "|", "![", "```", "- "))]
        return [
            re.match(r"#+ |!\[|```|- |\|", line)[0] + (str(cells(line)) if line[0] == "|" else "") for line in lines
        ]  # type: ignore[index]

    assert shape(report.en) == shape(report.ko)
    assert re.findall("[가-힣]", report.ko) and not re.findall("[가-힣]", report.en)


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("name", ["whole", "hostile", "running"])
def test_rows_of_markdown_tables_have_as_many_cells_as_their_heading(written, name: str) -> None:
    for text in (written(name).en, written(name).ko):
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            lines = table.splitlines()
            assert len(lines) > 2 and re.fullmatch(r"\|( -+:? \|)+", lines[1]), table
            assert {cells(line) for line in lines} == {cells(lines[0])}, table


@pytest.mark.parametrize("name", ["whole", "hostile", "running"])
def test_pictures_of_the_markdown_reports_exist_and_no_others(written, name: str) -> None:
    report = written(name)
    named = set(re.findall(r"!\[[^\]]*\]\(([^)]*)\)", report.en))
    assert named == {path.relative_to(report.workdir).as_posix() for path in (report.workdir / "plots").iterdir()}
    assert len(named) > 3


@pytest.mark.parametrize("name", ["whole", "hostile", "running"])
def test_nothing_is_loaded_from_elsewhere(written, name: str) -> None:
    report = written(name)
    for one in report.page.elements:
        for attribute, value in one.attributes.items():
            assert attribute not in ("src", "srcset", "action", "poster"), one.tag
            assert attribute not in ("href", "xlink:href") or value.startswith("#"), value
    assert not report.page.all("link") and not report.page.all("img") and not report.page.all("iframe")
    assert not re.findall(r"@import|url\((?!#)", report.html)


def test_data_cannot_break_the_page(written) -> None:
    report = written("hostile")
    page: Page = report.page
    tags = [one.tag for one in page.elements]
    assert (tags.count("script"), tags.count("style")) == (1, 1)
    assert not [attribute for one in page.elements for attribute in one.attributes if attribute.startswith("on")]
    command = page.all("pre")[0].text
    assert "<script>alert(1)</script>" in command and "{{ 7 * 7 }} {x}" in command  # as a text, whole
    for text in (report.html, report.en, report.ko):
        # Counted: pytest compares long texts for minutes to explain them.
        assert (text.count("\u202e"), text.count(r"\u202etfel") > 0) == (0, True)


def test_data_cannot_break_the_markdown(written) -> None:
    report = written("hostile")
    for text in (report.en, report.ko):
        prose = re.sub(r"^(`{3,})bash\n.*?^\1$|(`+).*?\2", "", text, flags=re.M | re.S)
        assert not re.findall(r"<script|</style|(?<!\\)\*bold", prose)
        assert [text.count(line) for line in (r"- \# &lt;script&gt;", "- \\- x")] == [1, 1]


def test_a_page_that_is_sent_by_mail_stays_small(written) -> None:
    assert len(written("whole").html.encode()) < 1.5e6


def test_words_of_plots_do_not_overlap(written) -> None:
    for name in ("whole", "hostile", "running"):
        layout = {file: wrong for file, wrong in written(name).layout.items() if wrong}
        assert not layout


def test_failed_and_missing_ways_are_named(written) -> None:
    whole, running = written("whole"), written("running")
    (failure,) = (way.failure for way in whole.comparison.ways if way.failure)
    assert any(failure in one.text for one in whole.page.all("td"))
    assert whole.en.count(f"`{failure}`") == 1
    for text, language in ((running.en, "en"), (running.ko, "ko"), (running.html, "en"), (running.html, "ko")):
        assert text.count(wording.catalogue(language)["caution.incomplete"]) == 1
    assert sum(wording.catalogue("en")["table.running"] in one.text for one in running.page.all("tr")) == 4


def test_numbers_of_the_table(written) -> None:
    """The row of dapt+tapt, fine-tuned: what the example and its statistics say."""
    report = written("whole")
    (way,) = (way for way in report.comparison.ways if (way.name, way.method) == ("dapt+tapt", "finetune"))
    gain = standing(report.comparison).gains["dapt+tapt", "finetune"]
    scores = [run.test["macro_f1"] for run in way.runs]
    mean = sum(scores) / 5
    spread = (sum((value - mean) ** 2 for value in scores) / 4) ** 0.5
    row = next(line for line in report.en.split("\n") if line.startswith("| dapt+tapt (fine-tuning) |"))
    assert f"{100 * mean:.1f} ± {100 * spread:.1f}" in row
    assert f"| +{100 * gain.mean:.1f} | +{100 * gain.low:.1f} … +{100 * gain.high:.1f} |" in row
    assert row.endswith(" 3 h 24 min |")  # 3.19 h and 0.21 h


def test_old_plots_are_removed_and_a_second_call_writes_the_same(tmp_path: Path) -> None:
    comparison = examples.comparison(seeds=1, methods=("finetune",), names=("base", "dapt"))
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "old.png").touch()
    write.write_reports(tmp_path, comparison)
    first = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write.write_reports(tmp_path, comparison)
    assert {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
    assert Path("plots/old.png") not in first and Path("report.ko.md") in first


def test_the_catalogues_agree() -> None:
    english, korean = wording.catalogue("en"), wording.catalogue("ko")
    assert english.keys() == korean.keys() and len(english) > 100
    for key in english:
        assert sorted(re.findall(r"\{(\w+)\}", english[key])) == sorted(re.findall(r"\{(\w+)\}", korean[key])), key
        for text in (english[key], korean[key]):
            assert not re.search(r'[<>&"*_|\[\]\\]', re.sub(r"`[^`]+`|\{\w+\}", "", text)), f"{key} needs an escape"
            assert text.count("`") % 2 == 0


def test_every_message_is_used() -> None:
    sources = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*") if path.suffix in (".py", ".j2"))
    built = r"(way|method|sure|section|forgetting|caution|vocabulary)\."  # keys that end in a name of the data
    unused = [key for key in wording.catalogue("en") if f'"{key}"' not in sources and not re.match(built, key)]
    assert not unused


@pytest.mark.parametrize(
    ("value", "english", "korean"),
    [
        (wording.Seconds(4.26), "4.3 s", "4.3초"),
        (wording.Seconds(75), "75 s", "75초"),
        (wording.Seconds(1800), "30 min", "30분"),
        (wording.Seconds(3 * 3600 + 59), "3 h 01 min", "3시간 01분"),
        (wording.Level("macro_f1", 0.756), "75.6 %", "75.6%"),
        (wording.Level("mse", 0.756), "0.756", "0.756"),
        (wording.Change("f1", -0.031), "−3.1 points", "−3.1점"),
        (wording.Change("f1", 0.0001), "0.0 points", "0.0점"),
        (wording.Times(16.2), "16", "16"),
        (wording.Times(1.04), "1.0", "1.0"),
    ],
)
def test_values_in_both_languages(value: object, english: str, korean: str) -> None:
    for language, expected in (("en", english), ("ko", korean)):
        assert wording.Wording(language, str, str, str).plain(value) == expected


@pytest.mark.parametrize(
    ("number", "text"), [(0, "–"), (999, "999 FLOP"), (9.996e14, "1.00 PFLOP"), (3.57e18, "3.57 EFLOP")]
)
def test_operations(number: float, text: str) -> None:
    assert wording.operations(number) == text


@pytest.mark.parametrize(("joules", "text"), [(3600, "1.00 Wh"), (3600 * 258, "258 Wh"), (3600 * 1390, "1.39 kWh")])
def test_energy(joules: float, text: str) -> None:
    assert wording.energy(joules) == text


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.0312, "0.031"), (0.456, "0.46"), (float("nan"), "–")])
def test_p_values(p: float, text: str) -> None:
    assert wording.p_value(p) == text
