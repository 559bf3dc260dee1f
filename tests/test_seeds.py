"""Several seeds in one command, with runs that are only acted: what is chosen, written and refused."""

import dataclasses
import json
import math
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from commands import rows, tree
from messages import refuses

from jaxplm.config import Config, Data, Task, Train
from jaxplm.engine.workdir import claim
from jaxplm.recipes.finetune import seeds

CONFIG = Config(recipe="finetune", data=Data(train="a.jsonl"), task=Task(kind="regress"), train=Train(steps=4, seeds=(5, 3, 9)))


class Actor:
    """Leaves what a run leaves; `scores` are {seed: (validation spearman, test spearman)}, None as metrics.jsonl has NaN."""

    def __init__(self, scores: dict[int, tuple[Any, Any]], texts: dict[int, str] | None = None) -> None:
        self.scores, self.texts, self.played = scores, texts or {}, []

    def __call__(self, config: Config, workdir: Path, command: str) -> None:
        assert config.train.seeds == ()
        if (workdir / "export" / "model.safetensors").exists():
            return
        self.played.append(config.seed)
        claim(workdir, config, write=True, corpus=self.texts.get(config.seed, "same"))
        validation, test = self.scores[config.seed]
        made = [
            {"step": 0, "split": "validation", "spearman": 0.0, "loss": 3.0, "seconds": 1.0},
            {"step": 2, "split": "train", "loss": 1.0, "seconds": 2.0, "tokens": 5.0},
            {"step": 2, "split": "validation", "spearman": validation, "loss": 2.0, "seconds": 1.0},
            {"step": 4, "split": "validation", "spearman": 0.99, "loss": 2.0, "seconds": 1.0},
            {"step": 2, "split": "test", "spearman": test, "loss": 2.5, "seconds": 1.0},
        ]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        (workdir / "predictions.jsonl").write_text(f"{config.seed}\n")
        (workdir / "export").mkdir()
        (workdir / "export" / "exported.json").write_text(json.dumps({"step": 2, "metric": "spearman"}))
        (workdir / "export" / "model.safetensors").write_text(f"model {config.seed}")


def test_the_best_on_validation_is_copied_and_all_are_told(tmp_path):
    actor = Actor({5: (0.5, 0.9), 3: (0.7, 0.1), 9: (0.7, 0.2)})
    seeds.run(CONFIG, tmp_path, "the command", actor)
    assert actor.played == [5, 3, 9], "in the order that was given"
    assert (tmp_path / "export" / "model.safetensors").read_text() == "model 3", "of equals the first"
    assert (tmp_path / "predictions.jsonl").read_text() == "3\n"
    assert [(row["seed"], row["split"], row["step"], row["spearman"]) for row in rows(tmp_path)] == [
        (5, "validation", 2, 0.5), (5, "test", 2, 0.9), (3, "validation", 2, 0.7), (3, "test", 2, 0.1),
        (9, "validation", 2, 0.7), (9, "test", 2, 0.2)]
    report = (tmp_path / "report.md").read_text()
    assert "40.0 ± 43.6" in report and "63.3 ± 11.5" in report and "the command" in report
    before = tree(tmp_path)
    seeds.run(CONFIG, tmp_path, "the command", actor)
    assert actor.played == [5, 3, 9] and tree(tmp_path) == before


def test_a_correlation_that_is_none(tmp_path):
    seeds.run(CONFIG, tmp_path, "", Actor({5: (None, None), 3: (0.2, 0.1), 9: (0.1, 0.3)}))
    assert (tmp_path / "export" / "model.safetensors").read_text() == "model 3"
    assert rows(tmp_path)[0]["spearman"] is None
    assert not [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "NaN" in line]
    assert math.isnan(seeds._outcome(5, tmp_path / "seed-5").scores["validation"]["spearman"])


def test_all_of_them_are_none(tmp_path):
    """A validation set of one number: no correlation tells which seed is best, and the first is as good as any."""
    seeds.run(CONFIG, tmp_path, "", Actor(dict.fromkeys((5, 3, 9), (None, None))))
    assert (tmp_path / "export" / "model.safetensors").read_text() == "model 5"


def test_an_unfinished_comparison_is_resumed(tmp_path):
    class Stopped(Exception):
        pass

    first, second = Actor(dict.fromkeys((5, 3, 9), (0.5, 0.5))), Actor(dict.fromkeys((5, 3, 9), (0.5, 0.5)))

    def until_the_third(config, workdir, command):
        if config.seed == 9:
            raise Stopped
        first(config, workdir, command)

    with pytest.raises(Stopped):
        seeds.run(CONFIG, tmp_path, "", until_the_third)
    assert not (tmp_path / "export").exists() and (tmp_path / "config.json").exists()
    (tmp_path / f".export.{socket.gethostname()}.partial").mkdir()  # of a run that was killed while it copied
    (tmp_path / f".export.{socket.gethostname()}.partial" / "old").write_text("")
    seeds.run(CONFIG, tmp_path, "", second)
    assert second.played == [9] and {path.name for path in (tmp_path / "export").iterdir()} == {"exported.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "export/exported.json"])
@pytest.mark.parametrize("content", [None, "", "{}", "[" * 100_000, "null", '{"step": 1, "split": "train", "loss": 1}'])
def test_a_damaged_file_of_a_finished_seed(tmp_path, name, content):
    actor = Actor(dict.fromkeys((5, 3, 9), (0.5, 0.5)))
    seeds.run(CONFIG, tmp_path, "", actor)
    shutil.rmtree(tmp_path / "export")
    (tmp_path / ".checksums.json").unlink()
    path = tmp_path / "seed-3" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with refuses(str(tmp_path / "seed-3"), path.name):
        seeds.run(CONFIG, tmp_path, "", actor)
    shutil.rmtree(tmp_path / "seed-3")
    seeds.run(CONFIG, tmp_path, "", actor)
    assert actor.played == [5, 3, 9, 3] and (tmp_path / "export" / "model.safetensors").exists()


def test_seeds_of_other_texts_are_not_compared(tmp_path):
    with refuses("a.jsonl", "changed", "seed-5", "seed-3", "another"):
        seeds.run(CONFIG, tmp_path, "", Actor(dict.fromkeys((5, 3, 9), (0.5, 0.5)), {3: "other"}))
    assert not (tmp_path / "export").exists()


def test_another_config_is_refused(tmp_path):
    actor = Actor(dict.fromkeys((5, 3, 9), (0.5, 0.5)))
    seeds.run(CONFIG, tmp_path, "", actor)
    other = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, seeds=(5, 3)))
    with refuses("train.seeds", "--workdir"):
        seeds.run(other, tmp_path, "", actor)
