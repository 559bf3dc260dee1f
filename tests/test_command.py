"""`python -m jaxplm.main` from start to end: what it leaves, what it says, and what it does when it is asked twice."""

import json
import runpy

import checkpoints
import numpy as np
import pytest
import transformers
from checkpoints import torch
from commands import ROOT, STEPS, fields, rows, succeeded, tree
from messages import assert_line, assert_refusal, assert_says

import jaxplm

pytestmark = pytest.mark.slow


def test_the_workdir_is_as_the_interface_says(reference):
    there = {str(path.relative_to(reference.workdir)) for path in reference.workdir.rglob("*")}
    for name in ("config.json", "metrics.jsonl", "report.md", "plots/loss.png", "export/config.json", "export/model.safetensors",
                 "export/tokenizer.json", "export/tokenizer_config.json", "export/README.md"):
        assert name in there, name
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in there)
    assert not [name for name in there if "partial" in name or "tmp" in name]
    kept = {int(path.name) for path in (reference.workdir / "checkpoints").iterdir()}
    assert {STEPS, STEPS - 2} <= kept  # the two newest
    assert len(kept) <= 3  # and the best


def test_the_resolved_config_is_kept(reference):
    kept = json.loads((reference.workdir / "config.json").read_text())
    assert kept["version"] == jaxplm.__version__
    assert kept["train"]["steps"] == STEPS  # an override
    assert kept["train"]["beta2"] == 0.98  # a default
    assert kept["data"]["eval_rows"] == runpy.run_path(str(ROOT / "configs" / "dapt.py"))["get_config"]().data.eval_rows  # the recipe's own


def test_metrics(reference):
    found = rows(reference.workdir, clocks=True)
    assert (found[0]["step"], found[0]["split"]) == (0, "validation")
    assert [row["step"] for row in found if row["split"] == "train"] == list(range(1, STEPS + 1))
    for split in ("validation", "general"):
        assert [row["step"] for row in found if row["split"] == split] == [0, 6, 12, 18, 24]
    for row in found:
        required = {"loss", "perplexity", "accuracy"}
        if row["split"] == "train":
            required |= {"learning_rate", "tokens_per_second", "seconds", "grad_norm"}
            assert row["tokens"] <= 8 * 32
            assert row["tokens_per_second"] > 0
        assert required <= row.keys()
        np.testing.assert_allclose(row["perplexity"], np.exp(row["loss"]), rtol=1e-6)
    validation = [row["loss"] for row in found if row["split"] == "validation"]
    assert validation[-1] < validation[0] - 0.1, "it learns"


def test_what_the_user_is_told(reference):
    out = reference.output
    for said in (("blank line", "corpus.txt"), ("held out",), ("2 layers",), ("22,355",), ("tokens", "epoch"),
                 ("24 × 8 rows",), ("mesh",), ("step 0", "validation loss"), (f"step {STEPS}/{STEPS}",),
                 ("validation perplexity",), ("exported",)):
        assert_line(out, *said)
    assert "%|" not in out, "no progress bar outside a terminal"
    report = (reference.workdir / "report.md").read_text()
    card = (reference.workdir / "export" / "README.md").read_text()
    for text in (report, card):
        assert "python -m jaxplm.main --config=configs/dapt.py" in text
    assert card.startswith("---\n")


def test_the_export_in_stock_transformers(reference, capfd):
    export = reference.workdir / "export"
    with checkpoints.listening() as heard:
        model, told = transformers.AutoModelForMaskedLM.from_pretrained(export, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(export)
        answers = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)("the [MASK] sat on the tree.")
    assert heard == []
    assert not any(told.values()), told
    assert "warn" not in capfd.readouterr().err.lower()
    assert len(answers) == 5
    batch = tokenizer(["the cat sat on the mat.", "a small red house in the river with a dog."], return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model.eval()(**batch).logits.numpy()
    ours, same_tokenizer = jaxplm.load(str(export))
    logits = np.asarray(ours.mlm_logits(batch["input_ids"].numpy(), batch["attention_mask"].numpy()))
    real = batch["attention_mask"].numpy().astype(bool)
    np.testing.assert_allclose(logits[real], theirs[real], atol=1e-4)
    assert same_tokenizer("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]


def test_a_finished_run_says_so_and_changes_nothing(lab, reference):
    before = tree(reference.workdir)
    out = succeeded(lab.train(reference.workdir))
    assert_says(out, str(reference.workdir), "finished")
    assert len(out.splitlines()) == 1
    assert tree(reference.workdir) == before


def test_another_config_in_the_same_workdir_is_refused(lab, reference):
    before = tree(reference.workdir)
    done = lab.train(reference.workdir, *fields(data__mask_rate=0.2, train__steps=30))
    assert done.returncode == 2
    assert_refusal(done.stderr, str(reference.workdir), "data.mask_rate", "0.15 → 0.2", "train.steps", "24 → 30", "--workdir")
    assert tree(reference.workdir) == before


def test_evaluation_of_the_export_gives_the_number_that_training_saw(lab, reference, tmp_path):
    held_out = tmp_path / "held_out.txt"
    held_out.write_bytes(b"the cat sat on the mat.\na small \xff\xfe red house.\nthe old river is in the green tree.\n")
    flags = ["--config=configs/evaluate.py", f"--workdir={tmp_path / 'eval'}",
             *fields(model__path=reference.workdir / "export", data__validation=held_out, data__general=lab.general, data__seq_len=32,
                     data__eval_rows=500, train__batch_size=4)]
    out = succeeded(lab.run(flags))
    assert_line(out, "warning", "bytes", "1 of 3 texts")
    found = rows(tmp_path / "eval")
    assert [(row["step"], row["split"]) for row in found] == [(0, "validation"), (0, "general")]
    seen = [row for row in rows(reference.workdir) if row["split"] == "general" and row["step"] == reference.exported_step]
    np.testing.assert_allclose(found[1]["loss"], seen[0]["loss"], rtol=1e-5)
    assert found[1]["accuracy"] == seen[0]["accuracy"]


def test_pytorch_is_not_imported(lab, tmp_path):
    """transformers would, for the tokenizer alone, wherever it finds it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('torch is imported')\n")
    succeeded(lab.train(tmp_path / "run", "--config.train.steps=1", PYTHONPATH=str(tmp_path)))
