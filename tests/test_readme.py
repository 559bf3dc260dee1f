"""README's commands, as they are printed there: one after the other in a new directory, at a small size."""

import re
import shlex

import pytest
from commands import ROOT, fields
from helpers import sentences
from task_runs import write_tag

pytestmark = pytest.mark.slow

# What is added to a recipe's command, so that it takes seconds. Everything else is as README has it.
SMALL = {
    "dapt": fields(data__seq_len=32, train__batch_size=4, train__steps=2, train__eval_every=2, data__eval_rows=4, compute__unroll=False),
    "finetune": fields(task__overlap=8, data__seq_len=32, train__batch_size=8, train__seeds=(),
                       train__eval_every=1000, compute__unroll=False),
    "embed": fields(data__seq_len=32, train__batch_size=8),
}
LEFT = {"dapt": ["export/model.safetensors", "report.md", "plots/loss.png"], "finetune": ["export/model.safetensors", "predictions.jsonl"],
        "embed": ["embeddings/index.json", "export/modules.json"]}


def commands(name: str) -> list[list[str]]:
    """Return the words of every `jaxplm` command in the code blocks of a document, in order."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", (ROOT / name).read_text("utf-8"), re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("jaxplm ")]


def test_the_commands_run_one_after_the_other(lab, tmp_path):
    (tmp_path / "corpus").mkdir()
    for i in range(2):
        (tmp_path / "corpus" / f"{i}.txt").write_text("\n".join(sentences(60, seed=i)) + "\n")
    write_tag(tmp_path)
    given = commands("README.md")
    assert [re.findall(r"--config=(\w+)", " ".join(words)) for words in given] == [["dapt"], ["finetune"], ["embed"]]
    for words, recipe in zip(given, SMALL, strict=True):
        done = lab.run([*words[1:], *SMALL[recipe]], here=tmp_path)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == ""
        [workdir] = re.findall(r"--workdir=(\S+)", " ".join(words))
        for file in LEFT[recipe]:
            assert (tmp_path / workdir / file).is_file(), f"{words}: {file}"


def test_the_korean_readme_has_the_same_commands():
    assert commands("README.ko.md") == commands("README.md")
