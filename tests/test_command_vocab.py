"""The recipes that add tokens, by the real command: measured, chosen, added, trained, exported, resumed; and what is refused."""

import json

import checkpoints
import numpy as np
import pytest
import transformers
from commands import Lab, fields, rows, tree
from forked import Outcome, run_all
from messages import assert_line, assert_refusal, assert_says

import jaxplm
from jaxplm import hf
from jaxplm.nn import paths

pytestmark = pytest.mark.slow

WORDS = ["cardiomyopathy", "thrombocytopenia", "gastrointestinal", "서울특별시립병원"]
TEXTS = [f"the {WORDS[i % 4]} of patient {i % 7} was found in {WORDS[i % 3]} wards" for i in range(120)]
MISTAKES = {
    ("vocab.terms=", "nowhere.txt"): {"vocab__terms": "nowhere.txt"},
    ("vocab.init='zero'", "subword_mean", "mean", "normal"): {"vocab__init": "zero"},
    ("model.path", "extend_vocab", "configs/scratch.py"): {"model__path": ""},
    ("vocab.new_tokens=0",): {"vocab__new_tokens": 0},
}


@pytest.fixture(scope="module")
def done(lab: Lab) -> dict[str, Outcome]:
    """Every command of this file, by name."""
    root = lab.root / "vocab"
    root.mkdir()
    (root / "corpus.txt").write_text("\n".join(TEXTS) + "\n", "utf-8")
    (root / "terms.txt").write_text("wards\n%).\nthrombocytopenia\n", "utf-8")
    for family in ("bert", "roberta"):
        checkpoints.save(root / family, family)

    def command(name: str, recipe: str, settings: dict) -> list[str]:
        common = {"model__path": root / "bert", "data__train": root / "corpus.txt", "data__lines": "true", "data__seq_len": 16,
                  "compute__unroll": False, "compute__dtype": "float32", "train__batch_size": 4, "train__steps": 3, "train__log_every": 1,
                  "train__eval_every": 3, "vocab__new_tokens": 4}
        return [f"--config=configs/{recipe}.py", f"--workdir={root / name}", *fields(**(common | settings))]

    commands = {
        "surgery": command("surgery", "extend_vocab", {"train__steps": 0, "vocab__terms": root / "terms.txt"}),
        "rows first": command("rows", "extend_vocab", {"model__path": root / "roberta", "vocab__new_rows_first": 3, "vocab__mask_new": True,
                                                       "train__weight_decay": 0.1, "vocab__init": "mean"}),
        "exbert": command("exbert", "exbert", {}),
        "exbert all": command("all", "exbert", {"model__path": root / "roberta", "train__freeze": "()"}),
    }
    for name in ("surgery", "scratch"):  # what another command left, that was stopped before it began
        (root / name / "vocabulary").mkdir(parents=True)
        (root / name / "vocabulary" / "tokens.json").write_text(json.dumps({"tokens": ["##zzz"], "section": "another"}))
        checkpoints.tokenizer("bert").save_pretrained(root / name / "tokenizer")
    commands["scratch"] = command("scratch", "scratch", {"model__path": "", "vocab__kind": "bpe", "vocab__size": 300, "train__steps": 1})
    commands |= {said[0]: command(f"wrong{i}", "extend_vocab", settings) for i, (said, settings) in enumerate(MISTAKES.items())}
    outcomes = dict(zip(commands, run_all(lab, list(commands.values())), strict=True))
    late = {"again": commands["exbert"], "twice": command("twice", "exbert", {"model__path": root / "exbert" / "export"})}
    before = tree(root / "exbert")
    outcomes |= dict(zip(late, run_all(lab, list(late.values())), strict=True))
    assert tree(root / "exbert").keys() == before.keys()
    return outcomes


def test_surgery_alone_leaves_old_rows_and_ids_and_is_stock(done, lab):
    output = done["surgery"].succeeded()
    root = lab.root / "vocab"
    assert_line(output, "'%).'")
    before = transformers.AutoTokenizer.from_pretrained(root / "bert")
    with checkpoints.listening() as heard:
        model = transformers.AutoModelForMaskedLM.from_pretrained(root / "surgery" / "export")
        tokenizer = transformers.AutoTokenizer.from_pretrained(root / "surgery" / "export")
    assert heard == []
    assert len(tokenizer) > len(before)
    assert model.config.vocab_size == checkpoints.SMALL["vocab_size"]  # spare rows took the new tokens
    for word in ("wards", "thrombocytopenia"):
        assert tokenizer.tokenize(word) == [word]
        assert len(before.tokenize(word)) > 1
    old, new = hf.load(str(root / "bert")), hf.load(str(root / "surgery" / "export"))
    size = len(before)
    for name in ("encoder/embeddings/word", "mlm_head/bias"):
        ours, theirs = paths.named(new.params)[name], paths.named(old.params)[name]
        assert np.array_equal(ours[:size], theirs[:size])
    pieces = before.convert_tokens_to_ids(before.tokenize("thrombocytopenia"))
    table = old.params["encoder"]["embeddings"]["word"]
    row = new.params["encoder"]["embeddings"]["word"][tokenizer.convert_tokens_to_ids("thrombocytopenia")]
    assert np.allclose(row, table[pieces].mean(0), atol=1e-6)
    report = (root / "surgery" / "report.md").read_text("utf-8")
    assert "## Vocabulary" in report
    assert "thrombocytopenia" in report
    assert (root / "surgery" / "plots" / "vocabulary.png").stat().st_size > 1000
    assert [row["step"] for row in rows(root / "surgery")] == [0]
    assert rows(root / "surgery")[0]["loss_per_character"] > 0


def test_new_rows_move_alone_while_they_have_their_head_start(done, lab):
    done["rows first"].succeeded()
    root = lab.root / "vocab"
    kept = json.loads((root / "rows" / "vocabulary" / "tokens.json").read_text("utf-8"))
    assert kept["tokens"]
    old, new = hf.load(str(root / "roberta")), hf.load(str(root / "rows" / "export"))
    size = len(old.tokenizer)  # the table is longer: new tokens take its spare rows first
    before, after = paths.named(old.params), paths.named(new.params)
    for name, leaf in before.items():
        if name in ("encoder/embeddings/word", "mlm_head/bias"):
            assert np.array_equal(leaf[:size], after[name][:size]), name
        else:
            assert np.array_equal(leaf, after[name]), name
    losses = [row["loss"] for row in rows(root / "rows") if row["split"] == "validation"]
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("name", "family"), [("exbert", "bert"), ("all", "roberta")])
def test_exbert_trains_the_extension_or_all(name, family, done, lab):
    done["exbert" if name == "exbert" else "exbert all"].succeeded()
    root = lab.root / "vocab"
    old, new = hf.load(str(root / family)), hf.load(str(root / name / "export"))
    before, after = paths.named(old.params), paths.named(new.params)
    size = len(old.tokenizer)

    def of_tokens(path: str, leaf: np.ndarray) -> np.ndarray:
        return leaf[:size] if path in ("encoder/embeddings/word", "mlm_head/bias") else leaf

    same = {path: np.array_equal(of_tokens(path, leaf), of_tokens(path, after[path])) for path, leaf in before.items()}
    assert set(same.values()) == {True} if name == "exbert" else not all(same.values())
    assert any(path.startswith("encoder/extension/blocks/") for path in after)
    model, tokenizer = jaxplm.load(str(root / name / "export"))
    ids = tokenizer(["the cardiomyopathy"], return_tensors="np")["input_ids"]
    assert model.mlm_logits(ids).shape == (*ids.shape, len(tokenizer))
    card = (root / name / "export" / "README.md").read_text("utf-8")
    assert_line(card, "transformers", "no class")
    assert "jaxplm.load" in card
    with pytest.raises(ValueError, match="exbert|does not recognize|model type"):
        transformers.AutoModelForMaskedLM.from_pretrained(root / name / "export")


def test_what_a_run_left_that_never_began_is_made_again(done, lab):
    done["scratch"].succeeded()
    root = lab.root / "vocab"
    assert "##zzz" not in json.loads((root / "surgery" / "vocabulary" / "tokens.json").read_text("utf-8"))["tokens"]
    made = transformers.AutoTokenizer.from_pretrained(root / "scratch" / "export").backend_tokenizer
    assert type(made.model).__name__ == "BPE"  # and not the WordPiece that lay there


def test_a_finished_run_says_so_and_an_extension_is_not_extended(done, lab):
    assert_says(done["again"].succeeded(), "finished")
    twice = done["twice"]
    assert twice.status == 2
    assert_refusal(twice.err, str(lab.root / "vocab" / "exbert" / "export"), "extension")


@pytest.mark.parametrize("said", MISTAKES, ids=lambda said: said[0])
def test_mistakes_get_one_line(said, done):
    outcome = done[said[0]]
    assert outcome.status == 2, outcome
    assert_refusal(outcome.err, *said)
