"""report.md, plots and the model card."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from messages import assert_says
from plot_layout import laid_out

from jaxplm.config import Config, Data, Export, Model
from jaxplm.errors import explain
from jaxplm.reporting.card import FILL_MASK, Card, model_card
from jaxplm.reporting.facts import Facts, Figure, Section
from jaxplm.reporting.plots import series, smooth, write_plots
from jaxplm.reporting.report import write_report
from jaxplm.reporting.tables import score_table, scores

PLOTS = ["accuracy.png", "learning_rate.png", "loss.png", "speed.png"]


def rows(general: bool = True) -> list[dict[str, Any]]:
    found = []
    for step in range(0, 101, 5):
        if step % 50 == 0:
            for split, loss in (("validation", 3 - step / 100), ("general", 2 + step / 1000))[: 1 + general]:
                found.append(
                    {"step": step, "split": split, "loss": loss, "perplexity": math.exp(loss), "accuracy": 0.4 + step / 500}
                )  # fmt: skip
        if step:
            found.append(
                {"step": step, "split": "train", "loss": None if step == 10 else 3 - step / 90, "learning_rate": 1e-4,
                 "tokens_per_second": 4000.0 + step, "seconds": 1.0}
            )  # fmt: skip
    return found


def facts(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "title": "DAPT of builtin:tiny",
        "command": "python -m jaxplm.main --config=configs/dapt.py",
        "exported_step": 100,
        "sections": [
            Section("Vocabulary", markdown="Words *kept* whole.", figures=[Figure("Splits", "plots/vocabulary.png")], in_card=False),
            Section("Data", {"training": "a|b\n말뭉치"}),
            Section("Settings", {}),
            Section("Cost", {"hardware": "2 CPU cores"}),
        ],
    }
    return Facts(**{**given, **changes})


def card_of(found: list[dict[str, Any]] | None = None, base: str = "builtin:tiny", train: str = "builtin:pydocs", general: str = "",
            **export: Any) -> tuple[dict[str, Any], str]:
    """The header and the text of a card."""
    config = Config(recipe="extend_vocab", model=Model(path=base), data=Data(train=train, general=general), export=Export(**export))
    card = model_card(config, facts(), Card(usage=FILL_MASK, pipeline_tag="fill-mask"), found or [])
    return ModelCard(card).data.to_dict(), card


def test_scores_before_and_as_exported() -> None:
    found = {(score.split, score.name): (score.before, score.after) for score in scores(rows(), 100)}
    assert found[("validation", "loss")] == (3.0, 2.0)
    assert found[("general", "accuracy")] == pytest.approx((0.4, 0.6))
    assert {name for _, name in found} == {"loss", "perplexity", "accuracy"}
    # The best step was exported, not the last one; what was never measured before has no "before".
    assert scores(rows(), 50)[0].after == 2.5
    assert scores(rows(), 70)[0].after == 2.5
    only_after = [row for row in rows() if row["step"] > 0]
    assert scores(only_after, 100)[0].before is None
    assert scores(rows(), 0)[0].before is None
    assert scores([], 0) == []


def test_score_table_words() -> None:
    table = score_table(scores(rows(), 100))
    assert table[0] == ("", "before", "after", "change")
    assert table[1] == ("validation loss", "3.0000", "2.0000", "-33.3 %")
    assert table[2] == ("validation perplexity", "20.09", "7.39", "-63.2 %")
    assert table[3] == ("validation accuracy", "40.00 %", "60.00 %", "+20.00 points")
    assert table[4][0] == "general text loss"
    task = [
        {"step": 0, "split": "test", "macro_f1": 0.5},
        {"step": 9, "split": "test", "macro_f1": 0.75, "mse": 0.5},
    ]
    assert score_table(scores(task, 9))[1:] == [
        ("test macro f1", "50.00 %", "75.00 %", "+25.00 points"),
        ("test mse", "", "0.5", ""),
    ]


@pytest.mark.slow
def test_report(tmp_path: Path) -> None:
    path = write_report(tmp_path, facts(), rows())
    text = path.read_text("utf-8")
    assert path.name == "report.md" and text.startswith("# DAPT of builtin:tiny\n\nValidation perplexity 20.09 → **7.39**")
    assert "| validation loss | 3.0000 | 2.0000 | -33.3 % |" in text
    assert "| training | a\\|b 말뭉치 |" in text  # one cell, one line
    assert "## Settings" not in text  # nothing to say
    assert "## Vocabulary\n\n![Splits](plots/vocabulary.png)\n\nWords *kept* whole.\n\n## Data" in text
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == PLOTS
    for name in PLOTS:
        assert f"](plots/{name})" in text
        assert (tmp_path / "plots" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "few",
    [
        [],
        [{"step": 0, "split": "validation", "loss": 2.0}],
        [{"step": 1, "split": "train", "loss": None}],
        [{"step": 1, "split": "train", "loss": 2.0, "learning_rate": 0.0, "tokens_per_second": 0.0}],
        [{"step": 3, "split": "test", "accuracy": 1.0}],
    ],
)
def test_runs_with_hardly_anything_to_draw(tmp_path: Path, few: list[dict[str, Any]]) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "speed.png").write_text("of an earlier run")
    text = write_report(tmp_path, facts(exported_step=0), few).read_text()
    for path in (tmp_path / "plots").iterdir():
        assert f"plots/{path.name}" in text and path.stat().st_size > 5000
    assert "nan" not in text


@pytest.mark.parametrize(("name", "is_file"), [("plots", True), ("report.md", False), ("plots/loss.png", False)])
def test_what_stands_where_a_report_belongs_is_named(tmp_path: Path, name: str, is_file: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("") if is_file else path.mkdir()
    with pytest.raises(OSError) as caught:
        write_report(tmp_path, facts(), rows())
    assert_says(explain(caught.value) or "", str(path))


@pytest.mark.slow
def test_plots_are_not_blank(tmp_path: Path) -> None:
    import matplotlib.image

    for _, path in write_plots(tmp_path, rows(), exported_step=50):
        pixels = np.asarray(matplotlib.image.imread(path))[..., :3]
        assert pixels.shape[0] >= 500 and pixels.shape[1] >= 900
        coloured = (pixels.max(-1) - pixels.min(-1)) > 0.2
        assert coloured.mean() > 0.002  # a curve was drawn


SPEEDS = {
    "even": [4000.0] * 40,
    "first one slow": [20.0, *[4000.0 + i for i in range(40)]],
    "falling": [9e6 / (i + 1) for i in range(60)],
    "high at the end": [*[1000.0] * 30, 123_456_789.0],
    "two": [1000.0, 10.0],
    "one": [12.0],
    "none": [0.0],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEEDS)
def test_no_words_of_a_plot_overlap_or_are_cut_off(tmp_path: Path, name: str) -> None:
    """The legend is on no curve either."""
    losses = [10.0 / (i + 1) if name != "even" else 1.0 for i in range(len(SPEEDS[name]))]
    found = [{"step": 500_000 * (i + 1), "split": "train", "loss": loss, "learning_rate": 3e-4 / (i + 1), "tokens_per_second": speed}
             for i, (loss, speed) in enumerate(zip(losses, SPEEDS[name], strict=True))]
    for split in ("validation", "general", "test"):
        found += [{"step": row["step"], "split": split, "loss": row["loss"] * {"validation": 1.2, "general": 1.7, "test": 2.3}[split],
                   "accuracy": {"validation": 0.4, "general": 0.7, "test": 0.1}[split]} for row in found[:: 10 if split != "test" else 99]
                  if row["split"] == "train"]
    with laid_out() as problems:
        write_plots(tmp_path, found, exported_step=found[len(SPEEDS[name]) // 2]["step"])
    assert problems.keys() >= {"speed.png", "loss.png", "accuracy.png"}
    assert not any(problems.values()), problems


def test_smooth_has_no_lag_and_keeps_lines() -> None:
    line = [2.0 * i + 1 for i in range(40)]
    np.testing.assert_allclose(smooth(line, 9), line)
    noise = np.random.default_rng(0).normal(size=400)
    assert np.std(smooth(list(noise), 25)) < 0.35 * np.std(noise)
    assert smooth([], 5) == []
    assert series(rows(), "train", "loss")[0][:3] == [5, 15, 20]  # step 10 was not finite


def test_model_card() -> None:
    header, card = card_of(rows(), base="roberta-base", train="hf:imdb, hf:owner/news:en, corpus/one.txt", license="apache-2.0",
                           language=("en", "no"))
    assert {name: value for name, value in header.items() if name != "model-index"} == {
        "language": ["en", "no"], "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "fill-mask",
        "base_model": "roberta-base", "datasets": ["imdb", "owner/news"], "tags": ["jaxplm", "extend-vocab"]}
    assert "- 'no'" in card  # unquoted, YAML reads it as false
    assert 'pipeline("fill-mask"' in card and "| validation perplexity | 20.09 | 7.39 | -63.2 % |" in card
    assert "2 CPU cores" in card and "python -m jaxplm.main" in card and "Licence: apache-2.0." in card
    assert "Vocabulary" not in card and "](" not in card  # pictures stay in the report


def test_model_index() -> None:
    """The scores of the exported step, as the hub reads them."""
    card = ModelCard(card_of(rows(), train="/home/me/corpus/a.txt,b.txt", general="hf:owner/news:en", name="pydocs-tiny")[1])
    assert card.data.model_name == "pydocs-tiny" and card.content.count("pydocs-tiny") == 2  # the header and the heading
    found = {(result.dataset_split, result.metric_type): result for result in card.data.eval_results}
    assert found.keys() == {(split, name) for split in ("validation", "general") for name in ("loss", "perplexity", "accuracy")}
    loss = found["validation", "loss"]
    assert (loss.task_type, loss.dataset_name, loss.metric_value, loss.metric_name) == ("fill-mask", "a.txt, b.txt", 2.0, "Loss")
    assert found["validation", "perplexity"].metric_value == pytest.approx(math.exp(2), abs=1e-6)
    general = found["general", "accuracy"]
    assert (general.dataset_type, general.dataset_name, general.metric_value) == ("owner/news", "owner/news", pytest.approx(0.6))
    assert "name: tiny-extend-vocab" in card_of(rows())[1]


def test_model_card_says_what_is_unknown(tmp_path: Path) -> None:
    header, card = card_of()
    assert "No licence is recorded" in card and "## Scores" not in card
    # builtin:tiny is no id of the hub's, and the built-in texts are none of its data sets.
    assert header.keys() == {"library_name", "pipeline_tag", "tags"}
    for path in (str(tmp_path), "runs/dapt/export/", "../model", ".", "a/b/c", ""):
        assert "base_model" not in card_of(base=path)[0]
    assert "from random weights" in card_of(base="")[1]
    other = model_card(Config(), facts(), Card(usage="import other"), [])
    assert "pipeline_tag" not in other and "```python\nimport other\n```" in other


def test_matplotlib_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, jaxplm.reporting.report, jaxplm.reporting.card; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
