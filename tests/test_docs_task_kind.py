"""The page "Add a task kind" does what it says: its code is a kind that trains, predicts, is scored, exported, loaded and evaluated."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, Lab, fields

PAGE = ROOT / "docs" / "extend" / "task_kind.md"
WORDS = "the quick brown fox jumps over the lazy dog and reads a book about cats".split()

pytestmark = pytest.mark.slow


def files() -> dict[str, str]:
    """{name: content} of the page's files: blocks of Python whose first line is a comment with the name."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.M | re.S)
    return {re.match(r"# (\w+\.py)\n", block)[1]: block for block in blocks}  # type: ignore[index]


def write_rows(path: Path, count: int, seed: int) -> None:
    """Sentences whose tokens have their length as their number."""
    random = np.random.default_rng(seed)
    sentences = [random.choice(WORDS, random.integers(2, 12)).tolist() for _ in range(count)]
    path.write_text("".join(json.dumps({"tokens": words, "numbers": [len(word) / 4 for word in words]}) + "\n" for words in sentences))


@pytest.fixture(scope="module")
def trained(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page's files and a finished run of them."""
    here = tmp_path_factory.mktemp("kind")
    for name, content in files().items():
        (here / name).write_text(content)
    for name, count in (("train.jsonl", 60), ("test.jsonl", 7)):
        write_rows(here / name, count, count)
    settings = fields(model__path=lab.model, data__train=here / "train.jsonl", data__test=here / "test.jsonl", data__seq_len=32,
                      task__overlap=8, train__batch_size=8, train__eval_every=6, train__log_every=2)
    done = lab.run([f"--config={here / 'words.py'}", f"--workdir={here / 'runs' / 'words'}", *settings], path=[here])
    assert done.returncode == 0, done.stdout + done.stderr
    return here


def scores(workdir: Path, split: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def predictions(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]


def test_the_page_is_short() -> None:
    kept = files()
    assert {"word_numbers.py", "word_numbers_loss.py", "words.py"} <= kept.keys()
    assert sum(len(block.splitlines()) for block in kept.values()) < 80


def test_it_learns(trained: Path) -> None:
    workdir = trained / "runs" / "words"
    validation = scores(workdir, "validation")
    assert validation[-1]["mae"] < 0.8 * validation[0]["mae"]
    assert scores(workdir, "train")[-1]["loss"] < scores(workdir, "train")[0]["loss"]
    [test] = scores(workdir, "test")
    rows = [json.loads(line) for line in (trained / "test.jsonl").read_text().splitlines()]
    found = predictions(workdir)
    assert [row["row"] for row in found] == list(range(7))
    assert [len(row["label"]) for row in found] == [len(row["tokens"]) for row in rows]
    errors = [abs(a - b) for row, one in zip(rows, found, strict=True) for a, b in zip(row["numbers"], one["label"], strict=True)]
    assert np.mean(errors) == pytest.approx(test["mae"], abs=1e-5)
    assert "mae" in (workdir / "report.md").read_text()


def test_the_export_is_loaded_and_evaluated(lab: Lab, trained: Path) -> None:
    export = trained / "runs" / "words" / "export"
    head = json.loads((export / "jaxplm.json").read_text())["head"]
    assert (head["kind"], head["classes"]) == ("word_numbers", 1)
    environment = lab.environment(PYTHONPATH=f"{trained}:{ROOT}")
    check = (trained / "load.py").read_text() + "\nimport numpy\nassert numbers.shape[::2] == (1, 1) and numpy.isfinite(numbers).all()\n"
    done = subprocess.run([sys.executable, "-c", check], cwd=trained, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (trained / "again.py").write_text(
        "import word_numbers\nfrom jaxplm.config import Config, Data, Task\n\n"
        "def get_config():\n    return Config(recipe='evaluate', data=Data(tags='numbers', seq_len=32), task=Task(overlap=8))\n")
    done = lab.run([f"--config={trained / 'again.py'}", f"--workdir={trained / 'runs' / 'again'}",
                    *fields(model__path=export, data__test=trained / "test.jsonl")], path=[trained])
    assert done.returncode == 0, done.stderr
    workdir = trained / "runs" / "again"
    assert scores(workdir, "test")[0]["mae"] == pytest.approx(scores(trained / "runs" / "words", "test")[0]["mae"], abs=1e-5)
    assert predictions(workdir) == predictions(trained / "runs" / "words")


def test_a_kind_that_is_not_registered_is_named(lab: Lab, trained: Path) -> None:
    done = lab.run([f"--config={ROOT / 'configs' / 'evaluate.py'}", f"--workdir={trained / 'runs' / 'none'}",
                    *fields(model__path=trained / "runs" / "words" / "export", data__test=trained / "test.jsonl")])
    assert done.returncode == 2
    for part in ("jaxplm.json", "'word_numbers'", "registered"):
        assert part in done.stderr
