"""What a person sees of a labelled task: confusion matrix, tables, seeds, and how the exported model is used."""

import unicodedata
import warnings
from pathlib import Path
from typing import Any

import checkpoints
import matplotlib.font_manager
import matplotlib.image
import numpy as np
import pytest
import transformers
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from jaxplm.config import Config
from jaxplm.reporting import fonts
from jaxplm.reporting.card import LOAD, Card, model_card
from jaxplm.reporting.confusion_plot import write_confusion
from jaxplm.reporting.facts import Facts
from jaxplm.reporting.report import write_report
from jaxplm.reporting.sections import classes_section, confusion_figure, entities_section, seeds_section
from jaxplm.reporting.tables import scores, seeds_headline, summary
from jaxplm.scores.classification import UNSEEN, ClassScore, confusion, per_class
from jaxplm.tasks.kinds import KINDS

KOREAN = ["경제", "정치와 사회", "IT과학"]


def facts(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "title": "Fine-tuning", "command": "python -m jaxplm.main --config=configs/finetune.py", "exported_step": 50, "metric": "macro_f1",
    }  # fmt: skip
    return Facts(**{**given, **changes})


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"step": 10, "split": "train", "loss": 1.5, "learning_rate": 1e-4, "tokens_per_second": 10.0}]
    for step, score in ((0, 0.1), (50, 0.75), (100, 0.7)):
        found.append({"step": step, "split": "validation", "loss": 2 - score, "accuracy": score, "macro_f1": score, "mcc": score - 0.1})
    return [*found, {"step": 50, "split": "test", "macro_f1": 0.625}]


def counts(classes: int, unseen: int = 0) -> np.ndarray:
    random = np.random.default_rng(classes)
    gold = random.integers(0, classes, 900)
    predicted = np.where(random.random(900) < 0.7, gold, random.integers(0, classes, 900))
    return confusion(np.append(gold, [-1] * unseen), np.append(predicted, [0] * unseen), classes)


@pytest.fixture
def hangul(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A font, made here, that has the letters of KOREAN and no others; no other font is installed."""
    pen = TTGlyphPen(None)
    for point, draw in (((50, 0), pen.moveTo), ((50, 800), pen.lineTo), ((950, 800), pen.lineTo), ((950, 0), pen.lineTo)):
        draw(point)
    pen.closePath()
    names = {ord(letter): f"u{ord(letter):X}" for letter in sorted(set("".join(KOREAN)) - set(" IT"))}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "boxes.ttf")
    manager = matplotlib.font_manager.fontManager
    bundled = str(Path(matplotlib.get_data_path()))
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.fname.startswith(bundled)])
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [str(tmp_path / "boxes.ttf")])  # installed just now
    return "Boxes"


@pytest.fixture
def no_hangul(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only matplotlib's own fonts, as on a bare machine."""
    manager = matplotlib.font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.fname.startswith(matplotlib.get_data_path())])
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [])


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "unseen", "inches"), [(2, 0, 0.95), (13, 5, 0.56), (30, 0, 0.42)])
def test_confusion_matrix(tmp_path: Path, classes: int, unseen: int, inches: float) -> None:
    path = tmp_path / "plots" / "confusion.png"
    assert not write_confusion(path, counts(classes, unseen), [f"class {i} of $a_{i}$ which has a long name" for i in range(classes)])
    pixels = np.asarray(matplotlib.image.imread(path))[..., :3]
    blue = ((pixels.max(-1) < 0.66) & (np.ptp(pixels, axis=-1) > 0.1)).sum() / (150 * inches) ** 2  # in cells
    # The diagonal is dark blue but for its white counts; text is grey; the upper part of the colour bar adds a little.
    assert 0.8 * classes < blue < 1.2 * classes + 1


@pytest.mark.slow
def test_more_classes_than_names_fit(tmp_path: Path) -> None:
    assert write_confusion(tmp_path / "many.png", counts(60, 3), [f"intent {i}" for i in range(60)])
    assert matplotlib.image.imread(tmp_path / "many.png").shape[0] < 4000


def test_korean_names_need_a_font(tmp_path: Path, no_hangul: None) -> None:
    assert fonts.families_for(["positive", "négatif", "λ"]) == ["DejaVu Sans"]
    assert fonts.families_for(KOREAN) is None
    assert write_confusion(tmp_path / "numbers.png", counts(3), KOREAN)


def test_korean_names_with_a_font(tmp_path: Path, hangul: str) -> None:
    assert fonts.families_for(KOREAN) == ["DejaVu Sans", hangul]
    assert fonts.families_for([*KOREAN, "스"]) is None  # one letter too many
    decomposed = [unicodedata.normalize("NFD", name) for name in KOREAN]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that it does not have
        assert not write_confusion(tmp_path / "named.png", counts(3), decomposed)
        write_confusion(tmp_path / "other.png", counts(3), ["", "", ""])
    named, other = (matplotlib.image.imread(tmp_path / name) for name in ("named.png", "other.png"))
    assert named.shape[1] > other.shape[1] + 30  # there is room for names


def test_fonts_that_are_gone(tmp_path: Path, no_hangul: None) -> None:
    manager = matplotlib.font_manager.fontManager
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    for name in ("gone.ttf", "broken.ttf"):
        manager.ttflist.append(matplotlib.font_manager.FontEntry(fname=str(tmp_path / name), name="Lost", weight=400, style="normal"))
    assert fonts.families_for(KOREAN) is None


@pytest.mark.slow
def test_report_of_a_classifier(tmp_path: Path, no_hangul: None) -> None:
    found = counts(3, unseen=2)
    seeds = {seed: {"validation macro_f1": 0.7 + seed / 100, "test macro_f1": 0.6 + seed / 100} for seed in (1, 2, 3)}
    table = per_class(found, KOREAN)
    classes = classes_section(table, "validation", [confusion_figure(tmp_path, found, table)])
    given = facts(sections=[seeds_section(seeds), classes], headline=seeds_headline(seeds, "macro_f1"))
    text = write_report(tmp_path, given, rows()).read_text("utf-8")
    assert "Validation macro-F1 **72.0 ± 1.0 %**, test macro-F1 **62.0 ± 1.0 %** over 3 seeds." in text
    assert "| validation mcc | 0.00 % | 65.00 % | +65.00 points |" in text and "| test macro f1 |  | 62.50 % |  |" in text
    assert "| seed | validation macro-F1, % | test macro-F1, % |\n| --- | ---: | ---: |\n| 1 | 71.0 | 61.0 |" in text
    assert "| mean ± std | 72.0 ± 1.0 | 62.0 ± 1.0 |" in text
    assert "## Classes (validation)" in text and "](plots/confusion.png)" in text and "](plots/macro_f1.png)" in text
    # No font for the names: the picture has numbers, and its legend names the classes.
    assert f"1 {KOREAN[0]}, 2 {KOREAN[1]}, 3 {KOREAN[2]}" in text
    assert f"| {UNSEEN} | – | 0.0 | 0.0 | 2 |" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "loss.png", "macro_f1.png", "speed.png", "learning_rate.png", "confusion.png"
    }  # fmt: skip
    card = model_card(Config(), given, Card(usage=""), rows())
    assert "confusion.png" not in card and f"| {KOREAN[1]} |" in card and "mean ± std" in card


def test_report_of_entities(tmp_path: Path) -> None:
    table = [ClassScore("LOC", 0.5, 1.0, 2 / 3, 1200), ClassScore("", float("nan"), 0.0, 0.0, 3)]
    given = facts(metric="f1", sections=[entities_section(table, "test")])
    text = write_report(tmp_path, given, []).read_text("utf-8")
    assert "## Entities (test)" in text and "| LOC | 50.0 | 100.0 | 66.7 | 1,200 |" in text and "| (no type) | – | 0.0 | 0.0 | 3 |" in text
    assert "Classes" not in text and "Seeds" not in text and "Result" not in text


def test_summary_of_one_run() -> None:
    found = scores(rows(), 50)
    assert summary(found, "macro_f1") == "Validation macro-F1 10.00 % → **75.00 %** (+65.00 points), test macro-F1 **62.50 %**."
    assert summary(found, "f1") == ""
    assert seeds_headline({1: {"mse": 0.5}, 2: {"mse": 0.6}}, "mse") == "MSE **0.550 ± 0.071** over 2 seeds."


def snippet(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "task", "tag"),
    [
        ("SequenceClassification", "classify", "text-classification"),
        ("SequenceClassification", "multilabel", "text-classification"),
        ("TokenClassification", "tag", "token-classification"),
        ("QuestionAnswering", "qa", "question-answering"),
    ],
)
def test_the_card_s_code_runs(tmp_path: Path, architecture: str, task: str, tag: str) -> None:
    card = model_card(Config(), facts(), Card(usage=KINDS[task].usage, pipeline_tag=KINDS[task].pipeline_tag), [])
    assert f"library_name: transformers\npipeline_tag: {tag}\n" in card
    options = {} if task == "qa" else {"num_labels": 3}
    checkpoints.save(tmp_path / "export", "bert", checkpoints.model("bert", head=f"For{architecture}", **options))
    lines = snippet(card).replace("path/to/this/directory", str(tmp_path / "export")).strip().split("\n")
    space: dict[str, Any] = {}
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        exec("\n".join([*lines[:-1], "last_line = " + lines[-1]]), space)
    finally:
        transformers.logging.set_verbosity(level)
    last = space["last_line"]
    if task == "classify":
        assert set(last) == {"label", "score"}
    elif task == "multilabel":
        assert {row["label"] for row in last} == {"LABEL_0", "LABEL_1", "LABEL_2"}
    else:
        assert isinstance(last, list if task == "tag" else str)


def test_the_card_of_a_head_that_transformers_lacks() -> None:
    card = model_card(Config(), facts(), Card(usage=LOAD, pipeline_tag="text-classification", library="jaxplm"), [])
    assert "library_name: jaxplm\npipeline_tag: text-classification\n" in card
    assert 'jaxplm.load("path/to/this/directory")' in card and "transformers has no class" in card
