"""The command line in this process: flags, config files of a user's own, help, the version, exit statuses."""

import json
from pathlib import Path

import pytest
from messages import assert_refusal, assert_says, refuses

from jaxplm import main
from jaxplm.config import Config, flatten
from jaxplm.version import VERSION

CONFIGS = Path(main.__file__).parents[1] / "configs"


def resolved(*arguments: str) -> tuple[Config, list[str]]:
    """The checked config of a command line, and what flags have replaced in its config file."""
    found = main.parse(["jaxplm", *arguments])
    return found.config, main.resolve(found.config, found.given)


def own_file(directory: Path, **sections: str) -> str:
    """A config file of a user's own: Config(recipe=..., data=..., ...), each section as Python."""
    file = directory / "mine.py"
    arguments = ", ".join(f"{name}={value}" for name, value in sections.items())
    file.write_text(f"from jaxplm.config import *\n\ndef get_config():\n    return Config({arguments})\n")
    return f"--config={file}"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command that runs no recipe."""
    status = main.main(["jaxplm", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("given", ["dapt", str(CONFIGS / "dapt.py")])
def test_a_recipe_is_found_by_its_name_and_by_a_path(given):
    config, replaced = resolved(f"--config={given}")
    assert (config.recipe, config.data.train, replaced) == ("dapt", "builtin:pydocs", [])
    assert resolved("--config", given)[0] == config


def test_a_path_from_the_current_directory(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    assert resolved("--config=configs/tapt.py")[0].recipe == "tapt"


def test_a_folder_of_a_recipes_name_is_in_nobodys_way(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dapt").mkdir()
    assert resolved("--config=dapt")[0].recipe == "dapt"


@pytest.mark.parametrize(("arguments", "said"), [
    (["--config=dpat"], ("--config=dpat", "dapt", "tapt", "feature_extraction")),
    (["--config=tatp"], ("--config=tatp", "tapt")),
    (["--config=configs/dpat.py"], ("--config=configs/dpat.py", "dapt")),
    (["--config="], ("--config=", "dapt")),
    ([], ("--config", "--config=dapt")),
    (["--config=dapt", "--config=tapt"], ("--config", "dapt", "tapt")),
    (["--config=dapt", "--config.trian.steps=3"], ("trian.steps", "train.steps")),
    (["--config=dapt", "--noconfig.data.wholeword"], ("data.wholeword", "data.whole_word")),
    (["--config=dapt", "--config.train.steps=many"], ("train.steps=many", "integer", "0")),
    (["--config=dapt", "--config.train.steps=1e3"], ("train.steps=1e3", "integer")),
    (["--config=dapt", "--config.data.whole_word=maybe"], ("data.whole_word=maybe", "true", "false")),
    (["--config=dapt", "--config.train.learning_rate=fast"], ("train.learning_rate=fast", "number", "0", "10")),
    (["--config=dapt", "--config.train.schedule=lin"], ("train.schedule='lin'", "linear", "cosine", "constant")),
    (["--config=dapt", "--config.train.batch_size=100000000000"], ("train.batch_size=100000000000", "between 1 and 1048576")),
    (["--config=dapt", "--config.data.seq_len=7"], ("data.seq_len=7", "between 8 and 1048576")),
    (["--config=dapt", "--config.train.batch_size=0"], ("train.batch_size=0", "between 1 and 1048576")),
    (["--config=dapt", f"--config.train.steps=1{'0' * 23}"], (f"train.steps=1{'0' * 23}", "between 0 and 2147483647")),
    (["--config=dapt", f"--config.train.steps=1{'0' * 5000}"], ("train.steps", "between 0 and 2147483647")),
    (["--config=dapt", "--config.train.steps=-1"], ("train.steps=-1", "between 0 and 2147483647")),
    (["--config=dapt", "--config.train.epochs=1e300"], ("train.epochs=1e+300", "between 1e-06 and 1000000")),
    (["--config=finetune", "--config.train.seeds=(1,99999999999)"], ("train.seeds=(1, 99999999999)", "between 0 and 2147483647")),
    (["--config=dapt", "--wrokdir=x"], ("wrokdir", "workdir")),
    (["--config=dapt", "train"], ("'train'", "--config.<field>=<value>")),
])
def test_mistakes_are_one_line(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, err = answer(capsys, *arguments)
    assert (status, out) == (2, "")
    assert_refusal(err, *said)


def test_every_type_of_field_is_read_from_a_flag():
    config, _ = resolved("--config=finetune", "--config.train.batch_size=24", "--config.train.warmup=10", "--config.train.seeds=(1,2)",
                         "--config.task.label_smoothing=1e-2", "--config.task.layers=last4", "--config.model.dropout=0",
                         "--config.data.max_rows=7", "--config.train.freeze=encoder", "--config.data.label=class")
    assert (config.train.batch_size, config.train.warmup, config.train.seeds) == (24, 10.0, (1, 2))
    assert (config.task.label_smoothing, config.task.layers, config.model.dropout) == (0.01, "last4", 0.0)
    assert (config.data.max_rows, config.train.freeze, config.data.label) == (7, ("encoder",), "class")


@pytest.mark.parametrize(("argument", "value"), [
    ("--config.data.whole_word", True), ("--config.data.whole_word=true", True), ("--config.data.whole_word=False", False),
    ("--noconfig.data.whole_word", False),
])
def test_true_and_false(argument, value):
    assert resolved("--config=dapt", argument)[0].data.whole_word is value


def test_a_config_file_is_executed_once(tmp_path):
    given = own_file(tmp_path, data="Data(train='a.txt')", train="Train(steps=1)")
    file = tmp_path / "mine.py"
    file.write_text(f"with open({str(tmp_path / 'log')!r}, 'a') as log:\n    log.write('x')\n{file.read_text()}")
    resolved(given, "--config.train.steps=2")
    assert (tmp_path / "log").read_text() == "x"


def test_one_process_can_parse_several_command_lines():
    assert resolved("--config=dapt", "--config.train.steps=5")[0].train.steps == 5
    assert resolved("--config=dapt")[0].train.steps == 300
    assert resolved("--config=dapt", "--config.seed=3")[0].train.steps == 300


# ---------------------------------------------------------------- what a config file says is never changed silently

def test_a_file_keeps_its_validation_set_beside_a_test_set(tmp_path):
    given = own_file(tmp_path, recipe="'evaluate'", data="Data(validation='dev.jsonl')")
    config, replaced = resolved(given, "--config.data.test=test.jsonl")
    assert (config.data.validation, config.data.test, replaced) == ("dev.jsonl", "test.jsonl", [])


def test_the_recipes_own_validation_set_gives_way_to_a_test_set():
    config, _ = resolved("--config=evaluate", "--config.data.test=test.jsonl")
    assert (config.data.validation, config.data.test) == ("", "test.jsonl")
    config, _ = resolved("--config=evaluate", "--config.data.test=test.jsonl", "--config.data.validation=dev.jsonl")
    assert (config.data.validation, config.data.test) == ("dev.jsonl", "test.jsonl")
    config, _ = resolved("--config=evaluate", "--config.data.general=general.txt")
    assert (config.data.validation, config.data.general) == ("builtin:pydocs", "general.txt")


@pytest.mark.parametrize("kind", ["tag", "qa"])
def test_a_file_with_a_pooling_that_its_task_has_not_is_refused(tmp_path, kind):
    given = own_file(tmp_path, recipe="'finetune'", data="Data(train='a.jsonl')", train="Train(steps=1)",
                     task=f"Task(kind={kind!r}, pooling='mean')")
    with refuses("task.pooling='mean'", f"task.kind={kind}"):
        resolved(given)


def test_the_recipes_own_pooling_gives_way_to_a_task_of_tokens():
    assert resolved("--config=feature_extraction")[0].task.pooling == "mean"
    assert resolved("--config=feature_extraction", "--config.task.kind=tag")[0].task.pooling == "cls"
    with refuses("task.pooling='mean'", "task.kind=tag"):
        resolved("--config=feature_extraction", "--config.task.kind=tag", "--config.task.pooling=mean")


@pytest.mark.parametrize(("recipe", "data"), [("dapt", "Data(train='a.txt')"), ("evaluate", "Data(test='a.txt', validation='b.txt')"),
                                              ("embed", "Data(train='a.txt')"), ("finetune", "Data(train='a.jsonl', test='b.jsonl')")])
def test_without_flags_nothing_of_a_file_changes(tmp_path, recipe, data):
    given = own_file(tmp_path, recipe=repr(recipe), data=data, train="Train(epochs=2.0)",
                     task="Task(kind='classify', pooling='max')" if recipe == "finetune" else "Task()")
    before = dict(flatten(main.load_config(tmp_path / "mine.py")))
    config, replaced = resolved(given)
    assert dict(flatten(config)) == before and replaced == []


def test_steps_by_flag_take_the_place_of_epochs_and_that_is_said():
    config, replaced = resolved("--config=tapt", "--config.train.steps=50")
    assert (config.train.steps, config.train.epochs) == (50, None)
    (line,) = replaced
    assert_says(line, "train.steps", "train.epochs=100.0")
    assert resolved("--config=dapt", "--config.train.steps=50")[1] == []


def test_a_config_of_the_recipes_is_written_as_before():
    """config.json of a finished run has plain text, whatever gave way to what."""
    for recipe in main.RECIPES:
        config, _ = resolved(f"--config={recipe}")
        assert all(json.loads(json.dumps(value)) == (list(value) if isinstance(value, tuple) else value) for _, value in flatten(config))


# ---------------------------------------------------------------- help

def test_help_names_every_recipe_in_80_columns(capsys):
    status, out, err = answer(capsys, "--help")
    assert (status, err) == (0, "")
    assert_says(out, *main.RECIPES, "--config=", "--workdir=", "model.path", "data.train")
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) < 70, "short: the fields of a recipe are on its own page"
    assert answer(capsys, "-h") == (status, out, err)


@pytest.mark.parametrize("recipe", main.RECIPES)
def test_help_of_a_recipe_has_the_fields_that_it_reads_and_their_values(capsys, recipe):
    status, out, err = answer(capsys, f"--config={recipe}", "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert f"jaxplm --config={recipe}" in out
    shown = dict(line.strip().split(" = ", 1) for line in out.splitlines() if line.startswith("  ") and " = " in line)
    config = main.load_config(CONFIGS / f"{recipe}.py")
    assert shown["model.path"] == (config.model.path or "''")
    assert ("train.steps" in shown) == (recipe not in ("embed", "evaluate", "select", "adapt"))
    assert ("vocab.new_tokens" in shown) == (recipe in ("extend_vocab", "exbert"))
    assert ("task.pooling" in shown) == (recipe in ("finetune", "feature_extraction", "adapt"))


def test_help_of_a_file_of_ones_own_has_its_values(capsys, tmp_path):
    given = own_file(tmp_path, data="Data(train='my texts.txt', seq_len=99)", train="Train(steps=1)")
    status, out, _ = answer(capsys, given, "--help")
    assert status == 0
    assert_says(out, "data.seq_len = 99", "data.train = 'my texts.txt'")


def test_help_for_a_recipe_that_is_not_there(capsys):
    status, out, err = answer(capsys, "--config=dpat", "--help")
    assert (status, out) == (2, "")
    assert_refusal(err, "dpat", "dapt")


def test_the_version(capsys):
    assert answer(capsys, "--version") == (0, f"jaxplm {VERSION}\n", "")


def test_a_command_can_be_typed_again():
    assert main.command_line(["main.py", "--config=configs/dapt.py", "--config.data.train=my corpus/*.txt"]) == (
        "python -m jaxplm.main --config=configs/dapt.py '--config.data.train=my corpus/*.txt'")
    assert main.command_line(["/usr/local/bin/jaxplm", "--config=dapt"]) == "jaxplm --config=dapt"
