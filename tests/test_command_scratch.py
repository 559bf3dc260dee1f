"""The scratch recipe by the real command: a corpus in, a model out that stock transformers loads without a warning."""

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import transformers
from commands import Lab, fields, rows, tree
from forked import Outcome, run_all
from helpers import sentences
from messages import assert_line, assert_refusal

pytestmark = pytest.mark.slow

KOREAN = [f"{a} {b} {c}" for a in ("영화가", "배우는", "음악도", "결말이", "연기를", "드라마의") for b in ("정말", "너무", "조금", "그냥")
          for c in ("좋았어요ㅋㅋㅋㅋ", "별로였다ㅠㅠ", "재미있다!!", "지루하다...", "최고입니다 OST 10점")]
RUNS = {  # name: (corpus, settings)
    "bpe": ("latin", {"vocab__kind": "bpe", "vocab__cased": True}),
    "unigram": ("korean", {"vocab__kind": "unigram"}),
    "wordpiece": ("korean", {}),
}
MISTAKES: dict[tuple[str, ...], dict[str, Any]] = {  # what the line must name: settings
    ("vocab.kind='worpiece'", "wordpiece", "bpe", "unigram"): {"vocab__kind": "worpiece"},
    ("vocab.language='korea'", "auto", "latin", "korean"): {"vocab__language": "korea"},
    ("model.size='huge'", "tiny", "mini", "small", "base", "large"): {"model__size": "huge"},
    ("vocab.size=256", "261"): {"vocab__kind": "bpe", "vocab__size": 256},
    ("data.seq_len=64", "32"): {"data__seq_len": 64},
}


@pytest.fixture(scope="module")
def done(lab: Lab) -> dict[str, Outcome]:
    """Every command of this file, by name."""
    root = lab.root / "scratch"
    root.mkdir()
    (root / "latin.txt").write_text("\n".join(sentences(200)) + "\n")
    (root / "korean.txt").write_text("\n".join(KOREAN) + "\n")

    def command(name: str, corpus: str, settings: dict) -> list[str]:
        common = {"data__train": root / f"{corpus}.txt", "data__seq_len": 16, "data__lines": "true", "model__max_positions": 32,
                  "vocab__size": 400, "compute__unroll": False, "train__batch_size": 4, "train__steps": 2, "train__log_every": 1}
        return ["--config=configs/scratch.py", f"--workdir={root / name}", *fields(**(common | settings))]

    commands = {name: command(name, *run) for name, run in RUNS.items()}
    commands |= {said[0]: command(f"wrong{i}", "latin", settings) for i, (said, settings) in enumerate(MISTAKES.items())}
    outcomes = dict(zip(commands, run_all(lab, list(commands.values())), strict=True))
    # A tokenizer that is there already, and a second start of a finished run.
    late = {"existing": command("existing", "latin", {"model__tokenizer": root / "bpe" / "export"}), "again": commands["bpe"]}
    before = tree(root / "bpe")
    outcomes |= dict(zip(late, run_all(lab, list(late.values())), strict=True))
    assert tree(root / "bpe").keys() == before.keys()
    return outcomes


@pytest.mark.parametrize("name", RUNS)
def test_the_export_is_stock(name, done, lab):
    output = done[name].succeeded()
    corpus, _ = RUNS[name]
    assert_line(output, "vocab.language=auto", corpus, "Hangul")
    workdir = lab.root / "scratch" / name
    texts = KOREAN if corpus == "korean" else sentences(20)
    with checkpoints.listening() as heard:
        model = transformers.AutoModelForMaskedLM.from_pretrained(workdir / "export")
        tokenizer = transformers.AutoTokenizer.from_pretrained(workdir / "export")
        trained = transformers.AutoTokenizer.from_pretrained(workdir / "tokenizer")
    assert heard == []
    assert type(model).__name__ == ("RobertaForMaskedLM" if name == "bpe" else "BertForMaskedLM")
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert trained(texts, truncation=True)["input_ids"] == [row[mask.bool()].tolist() for row, mask in
                                                            zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    assert tokenizer.unk_token_id not in inputs["input_ids"]
    assert model(**inputs).logits.shape[-1] == len(tokenizer)
    full = tokenizer(["x " * 40], truncation=True, return_tensors="pt")
    assert full["input_ids"].shape == (1, 32)
    assert model(**full).logits.shape == (1, 32, len(tokenizer))
    losses = [row["loss"] for row in rows(workdir) if row["split"] == "validation"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [*RUNS, "existing"])
def test_the_vocabulary_is_measured_first(name, done, lab):
    """Before any training: in the log, in the report, as a plot."""
    output, workdir = done[name].succeeded(), lab.root / "scratch" / name
    assert output.count("fertility") == 1
    assert output.index("fertility") < output.index("step 1/2")
    report = (workdir / "report.md").read_text("utf-8")
    assert report.count("## Vocabulary") == 1 and "![Vocabulary](plots/vocabulary.png)" in report
    assert (workdir / "plots" / "vocabulary.png").stat().st_size > 5000
    of_this_corpus = "The new vocabulary of" in report or "Consider vocab.size=" in report
    assert of_this_corpus == (name != "existing")


def test_korean_says_what_the_corpus_fills(done, lab):
    size = len(transformers.AutoTokenizer.from_pretrained(lab.root / "scratch" / "wordpiece" / "export"))
    assert_line(done["wordpiece"].out, "vocab.size=400", str(size))


def test_an_existing_tokenizer(done, lab):
    output = done["existing"].succeeded()
    assert "vocab.language" not in output
    root: Path = lab.root / "scratch"
    assert not (root / "existing" / "tokenizer").exists()
    assert (root / "existing" / "export" / "vocab.json").read_bytes() == (root / "bpe" / "export" / "vocab.json").read_bytes()
    assert json.loads((root / "existing" / "export" / "config.json").read_text())["model_type"] == "roberta"


def test_a_finished_run_trains_no_second_vocabulary(done):
    assert "vocab.language" not in done["again"].succeeded()


@pytest.mark.parametrize("said", MISTAKES, ids=lambda said: said[0])
def test_mistakes_take_one_line(said, done):
    outcome = done[said[0]]
    assert outcome.status == 2, outcome
    assert_refusal(outcome.err, *said)
