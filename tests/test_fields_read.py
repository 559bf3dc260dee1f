"""What a recipe says it reads, against what its run reads: every field that is read is on the recipe's help page."""

import json
from pathlib import Path

import pytest
from commands import Lab, fields
from forked import run_all

pytestmark = pytest.mark.slow

# Runs the command, and prints the fields that were read outside of checks and config.json.
READER = """
import dataclasses, sys
from jaxplm import config, main

# These look at every field, or at those of all recipes.
SEE_ALL = ("jaxplm.config", "jaxplm.main", "jaxplm.engine.workdir", "jaxplm.reporting.card", "jaxplm.recipes.unread_fields",
           "dataclasses", "copy", "ml_collections.config_flags.config_path")
read = set()

def watch(section, prefix):
    names, original = {entry.name for entry in dataclasses.fields(section)}, section.__getattribute__
    def get(self, name):
        if name in names:
            reader = sys._getframe(1).f_globals.get("__name__", "")
            if reader not in SEE_ALL and not reader.endswith(".checks"):
                read.add(prefix + name)
        return original(self, name)
    section.__getattribute__ = get

for entry in dataclasses.fields(config.Config):
    if dataclasses.is_dataclass(entry.type):
        watch(entry.type, entry.name + ".")
watch(config.Config, "")
assert main.main(["jaxplm", *sys.argv[1:]]) == 0
print("read", *(name for name in sorted(read) if name in config.field_infos()), flush=True)
"""


def test_a_recipe_lists_every_field_that_it_reads(lab: Lab, tmp_path: Path):
    from jaxplm.config import fields_matching
    from jaxplm.main import RECIPES
    from jaxplm.recipes.adapt import checks as adapt
    from jaxplm.recipes.embed import checks as embed
    from jaxplm.recipes.evaluate import checks as evaluate
    from jaxplm.recipes.finetune import checks as finetune
    from jaxplm.recipes.pretrain import checks as pretrain
    from jaxplm.recipes.select import checks as select

    rows = [{"text": line, "label": "ab"[i % 2]} for i, line in enumerate(lab.corpus.read_text().splitlines()[:40])]
    labelled = tmp_path / "rows.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"model__path": lab.model, "data__seq_len": 32, "data__max_rows": 60, "train__batch_size": 4, "compute__unroll": False}
    steps = {"train__steps": 2, "train__eval_every": 1, "train__patience": 1}
    runs = {
        "scratch": short | {"train__steps": 0, "model__path": "", "data__train": lab.corpus, "vocab__size": 300,
                            "model__max_positions": 32},
        "exbert": short | steps | {"data__train": lab.corpus, "data__general": lab.general, "vocab__new_tokens": 2,
                                   "vocab__terms": tmp_path / "terms.txt"},
        "finetune": short | steps | {"data__train": labelled, "data__test": labelled.with_name("test.jsonl")},
        "embed": short | {"data__train": lab.corpus},
        "select": short | {"data__corpus": lab.corpus, "data__train": labelled, "data__test": labelled.with_name("test.jsonl"),
                           "select__neighbours": 2},
        "evaluate": {"model__path": lab.model, "data__seq_len": 32, "data__validation": lab.corpus, "data__general": lab.general},
    }
    (tmp_path / "terms.txt").write_text("firedog\nhousecat\n")
    labelled.with_name("test.jsonl").write_text("".join(json.dumps(row | {"text": f"a {row['text']}"}) + "\n" for row in rows[:8]))
    command_lines = [[f"--config={recipe}", f"--workdir={tmp_path / recipe}", *fields(**settings)] for recipe, settings in runs.items()]
    output = "".join(outcome.succeeded() for outcome in run_all(lab, command_lines, code=READER))
    found = [set(line.split()[1:]) for line in output.splitlines() if line.startswith("read ")]
    listed = pretrain.FIELDS | finetune.FIELDS | embed.FIELDS | evaluate.FIELDS | select.FIELDS | adapt.FIELDS
    assert listed.keys() == RECIPES.keys()
    for recipe, read in zip(runs, found, strict=True):
        assert len(read) > 10
        unlisted = read - {info.name for info in fields_matching(listed[recipe])} - {"recipe"}
        # All recipes of one kind of model share their code: fields of the others are read where they are off.
        assert unlisted <= {"model.pairs", "vocab.new_rows_first", "vocab.mask_new", "data.general"}, f"{recipe} reads {unlisted}"
