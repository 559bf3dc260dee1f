"""Commands of a few seconds for `two_runs.py` and `flip_bits.py`: builtin:tiny on a small corpus, a task and texts to embed."""

import json
import random
import sys
from pathlib import Path

RECIPES = ("dapt", "finetune", "embed")
_WORDS = "the cat dog sat ran on under mat tree house river with and a small big old new red green of to in was is".split()


def write_data(here: Path) -> None:
    """Write the files that the commands read."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(4, 14))) + "." for _ in range(300)]
    (here / "corpus.txt").write_text("\n".join(texts) + "\n")
    rows = [json.dumps({"text": text, "label": "animal" if "cat" in text or "dog" in text else "other"}) for text in texts]
    (here / "train.jsonl").write_text("\n".join(rows[:240]) + "\n")
    (here / "validation.jsonl").write_text("\n".join(rows[240:]) + "\n")


def command(recipe: str, here: Path, workdir: Path, *more: str) -> list[str]:
    """Return the command of a recipe; `feature_extraction` is one too."""
    fields = {"model.path": "builtin:tiny", "train.batch_size": 8, "data.seq_len": 32}
    training = {"train.eval_every": 4, "train.log_every": 2, "checkpoint.every": 2}
    task = {"task.kind": "classify", "data.train": here / "train.jsonl", "data.validation": here / "validation.jsonl"}
    fields |= {
        "dapt": {"data.train": here / "corpus.txt", "data.general": "", "train.steps": 8, **training},
        "finetune": {**task, "train.epochs": 1, **training},
        "feature_extraction": {**task, "train.epochs": 2, **training},
        "embed": {"data.train": here / "corpus.txt", "embed.shard_rows": 64},
    }[recipe]
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return [sys.executable, "-m", "jaxplm.main", f"--config={recipe}", f"--workdir={workdir}", *flags, *more]


def export_of(workdir: Path) -> dict[str, bytes]:
    """Return the files that a run leaves for its user, without those that name the workdir or the time."""
    found = {}
    for folder in ("export", "embeddings"):
        for file in sorted((workdir / folder).rglob("*")):
            if file.is_file() and file.name != "README.md":
                found[str(file.relative_to(workdir))] = file.read_bytes()
    return found
