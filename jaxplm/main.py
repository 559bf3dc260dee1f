"""The command: flags → config → recipe.

    jaxplm --config=dapt [--workdir=DIR] [--config.<field>=<value> ...]
    python -m jaxplm.main --config=configs/dapt.py ...        the same
"""

import sys

from jaxplm.devices import standard_streams, stop_signals
from jaxplm.devices.huge_pages import is_plain_command, restart_with_huge_pages

if is_plain_command(sys.orig_argv):  # before the imports that take time
    stop_signals.end_at_once()
    standard_streams.open_closed()
    restart_with_huge_pages()

import contextlib
import difflib
import importlib
import itertools
import logging
import os
import re
import runpy
import shlex
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

# Quiet libraries: set before they are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from absl import flags
from ml_collections import config_flags

from jaxplm.config import Config, check_field, field_infos, fields_matching, validate
from jaxplm.errors import REPORT, Interrupted, UserError, did_you_mean, explain, is_of_another_process, visible
from jaxplm.version import VERSION

# Recipe → its folder in `jaxplm/recipes`. There `checks` says which fields the recipe reads and how they go together, and
# `recipe` has `run(config, workdir, command)`. Only `recipe` imports JAX: a wrong flag is answered before that. A recipe whose
# `checks` have STARTS_JAX = False leaves the devices alone: it starts other commands, which need them.
RECIPES = {
    "dapt": "pretrain",
    "tapt": "pretrain",
    "scratch": "pretrain",
    "extend_vocab": "pretrain",
    "exbert": "pretrain",
    "finetune": "finetune",
    "feature_extraction": "finetune",
    "evaluate": "evaluate",
    "embed": "embed",
    "select": "select",
    "adapt": "adapt",
}


class _NumberOrNone(flags.ArgumentParser):
    """Parses a number, or None for the fields that may be None; the others are refused by their check."""

    def __init__(self, number: flags.ArgumentParser) -> None:
        self._number = number

    def parse(self, argument: Any) -> Any:
        return None if argument == "None" else self._number.parse(argument)

    def flag_type(self) -> str:
        return self._number.flag_type()


# ml_collections looks up how a field is parsed by its annotation, and does not know `Literal[...]` or `Annotated[int, Ge(1)]`.
_PARSERS = {int: _NumberOrNone(flags.IntegerParser()), float: _NumberOrNone(flags.FloatParser()), str: flags.ArgumentParser()}
for _info in field_infos().values():
    if _info.annotation is not _info.value_type and _info.value_type in _PARSERS:
        config_flags.register_flag_parser_for_type(_info.annotation, _PARSERS[_info.value_type])


@dataclass(frozen=True)
class CommandLine:
    """What a command line says.

    Attributes:
      config: what the config file returns, with the fields that flags give.
      given: dotted names of the fields that flags give.
      workdir: None where it is not given.
    """

    config: Config
    given: frozenset[str]
    workdir: Path | None


class _ConfigFile(flags.ArgumentParser):
    """Parses the value of --config: a recipe's name or a path."""

    def parse(self, argument: str) -> Config:
        return load_config(find_config(argument))

    def flag_type(self) -> str:
        return "config"


def parse(argv: list[str]) -> CommandLine:
    """Parse a command line, of which the first entry is the program; raise a `UserError` of one line for every mistake."""
    for argument in argv[1:]:
        if override := re.match(r"--?(?:no)?config\.([^=]*)", argument):
            check_field(override[1])
    files = _values_of("config", argv)
    if len(files) > 1:
        raise UserError(f"--config is given {len(files)} times: {', '.join(files)}")
    # Not the flags of the whole process, so that a command can be parsed more than once in one process.
    values = flags.FlagValues()
    values.append_flag_values(flags.FLAGS)  # those of libraries, such as --verbosity
    config_flags.DEFINE_config_file("config", None, "recipe or config file", values, lock_config=False, sys_argv=argv)
    values["config"].parser = _ConfigFile()  # ml_collections' own answers a mistake in the file with a traceback or an empty message
    flags.DEFINE_string("workdir", None, "where the run is kept", values)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(_readable(error)) from None
    flags.FLAGS.mark_as_parsed()  # libraries may ask for theirs
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; fields are given as --config.<field>=<value>")
    if values.config is None:
        raise UserError("no --config given; try --config=dapt, or --help for the recipes")
    given = frozenset(config_flags.get_override_values(values["config"]))
    return CommandLine(values.config, given, Path(values.workdir) if values.workdir else None)


def _values_of(name: str, argv: list[str]) -> list[str]:
    """Return the values that a flag has on a command line, each given as --name=value or --name value."""
    found = []
    for argument, following in itertools.pairwise([*argv[1:], ""]):
        if given := re.fullmatch(rf"--?{name}(?:=(.*))?", argument, re.S):
            found.append(following if given[1] is None else given[1])
    return found


def config_folder() -> Path:
    """Return the folder with the recipes' config files: in the package where it is installed, beside it in a clone."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find_config(given: str) -> Path:
    """Return the config file that `--config=given` means: a recipe's name or a path; raise a `UserError` if there is none."""
    if given in RECIPES:
        return config_folder() / f"{given}.py"
    if Path(given).is_file():
        return Path(given)
    if re.fullmatch(r"\w*", given):
        raise UserError(f"--config={given}: no recipe of that name{did_you_mean(given, RECIPES)}; there are {', '.join(RECIPES)}")
    known = sorted(str(path) for path in Path("configs").glob("*.py")) or list(RECIPES)
    near = difflib.get_close_matches(given, known, n=1)
    raise UserError(f"--config={given}: no such file{f'; did you mean {near[0]}?' if near else ''}; there are {', '.join(known)}")


def load_config(path: Path) -> Config:
    """Return what `get_config()` of a config file returns; raise a `UserError` of one line for a mistake in the file."""
    try:
        config = runpy.run_path(str(path))["get_config"]()
    except Exception as error:  # noqa: BLE001 whatever a user's file raises
        if isinstance(error, KeyError) and error.args == ("get_config",):
            raise UserError(f"--config={path}: it has no function get_config()") from None
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f" in line {line}" if line else ""
        raise UserError(f"--config={path}: {type(error).__name__}{where}: {' '.join(str(error).split())}") from None
    if not isinstance(config, Config):
        raise UserError(f"--config={path}: get_config() must return a jaxplm.config.Config, not {type(config).__name__}")
    return config


def _readable(error: Exception) -> str:
    text = str(error)
    if (wrong := re.match(r"flag --config\.(\S+?)=(.*?): (.*)", text, re.S)) and wrong[1] in field_infos():
        return f"{wrong[1]}={wrong[2]}: must be {field_infos()[wrong[1]].possible}"
    return text.split("\n")[0]


def resolve(config: Config, given: frozenset[str] | set[str]) -> list[str]:
    """Check a config; return what flags have replaced in the config file, a line each.

    One of train.steps and train.epochs among the fields that flags give, `given`, takes the place of the other in the file. A
    recipe's own fallbacks may give way, see its `checks`. Nothing else of a config file changes.

    Raises:
      UserError: a value that is impossible, or values that do not go together.
    """
    replaced = []
    for one, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
        leaf = other.removeprefix("train.")
        if one in given and other not in given and (value := getattr(config.train, leaf)) is not None:
            setattr(config.train, leaf, None)
            replaced.append(f"{one} is given and takes the place of {other}={value} in the config file")
    checks = _checks_of(config)
    validate(config)
    checks.check(config)
    return replaced


def _checks_of(config: Config) -> ModuleType:
    if config.recipe not in RECIPES:
        raise UserError(f"recipe={config.recipe!r}: must be one of {', '.join(RECIPES)}{did_you_mean(str(config.recipe), RECIPES)}")
    return importlib.import_module(f"jaxplm.recipes.{RECIPES[config.recipe]}.checks")


def command_line(argv: list[str]) -> str:
    """Return a command as it can be typed again."""
    program = "jaxplm" if Path(argv[0]).name == "jaxplm" else "python -m jaxplm.main"
    return " ".join([program, *map(shlex.quote, argv[1:])])


def help_text(argv: list[str]) -> str:
    """Return the help for a command line: that of a recipe's fields where it has --config, else that of the command."""
    from jaxplm.reporting import help_pages

    if files := _values_of("config", argv):
        path = find_config(files[0])
        config = load_config(path)
        return help_pages.recipe_page(path, config, fields_matching(_checks_of(config).FIELDS[config.recipe]))
    groups: dict[str, list[Path]] = {}
    for name, folder in RECIPES.items():
        about = (importlib.import_module(f"jaxplm.recipes.{folder}").__doc__ or folder).split(":")[0]
        groups.setdefault(about, []).append(config_folder() / f"{name}.py")
    return help_pages.command_page(groups)


def main(argv: list[str], *, own_process: bool = False) -> int:
    """Run a command line, of which the first entry is the program.

    Args:
      argv: as `sys.argv`.
      own_process: nothing but the command runs in this process.

    Returns:
      The exit status: 0 done; 2 a mistake of the user's or of the machine's; 143 stopped by SIGTERM; 130 by Ctrl-C.
    """
    try:
        if any(re.fullmatch(r"--?(h|help|helpfull|helpshort)", argument) for argument in argv[1:]):
            return _answer(help_text(argv))
        if "--version" in argv[1:]:
            return _answer(f"jaxplm {VERSION}")
        parsed = parse(argv)
        config = parsed.config
        replaced = resolve(config, parsed.given)
        run_config(config, parsed.workdir or Path("runs") / config.recipe, command_line(argv), replaced, own_process)
    except Interrupted as stopped:
        return _say(str(stopped), stopped.status)
    except KeyboardInterrupt as stopped:
        return _say(*stop_signals.describe(stopped))
    except Exception as error:
        if line := explain(error):
            status = _say(line, 2)
            if own_process and is_of_another_process(error):  # at its end JAX would wait for that one, or abort with C++ frames
                standard_streams.flush()
                os._exit(status)
            return status
        error.add_note(REPORT)
        raise
    return 0


def _answer(text: str) -> int:
    with contextlib.suppress(BrokenPipeError):  # `--help | head`
        print(text, flush=True)
    return 0


def _say(line: str, status: int) -> int:
    print(f"jaxplm: {visible(line)}", file=sys.stderr)
    return status


def recipe_of(name: str) -> Callable[[Config, Path, str], None]:
    """Import the recipe `name`, a key of `RECIPES`, and return its `run`."""
    return importlib.import_module(f"jaxplm.recipes.{RECIPES[name]}.recipe").run


def run_config(config: Config, workdir: Path, command: str, notes: list[str], own_process: bool) -> None:
    """Take the workdir's lock, set the process up, and run the recipe of a config that `resolve` has checked.

    Args:
      config: of the run.
      workdir: of the run.
      command: as the report shows it.
      notes: logged before the recipe is run.
      own_process: nothing but the run is in this process.

    Raises:
      UserError: what the recipe raises, and a workdir that another run holds.
      Interrupted: stopped by a signal, after saving.
    """
    # Imported here and in `_start`: a mistake in the flags has been answered by now, and these take seconds.
    from jaxplm.devices.start import several_processes
    from jaxplm.engine import workdir_lock

    starts_jax = getattr(_checks_of(config), "STARTS_JAX", True)
    with contextlib.ExitStack() as lock:
        if not (several := starts_jax and several_processes()):
            lock.enter_context(workdir_lock.held(workdir))
        run = _start(config.recipe, own_process) if starts_jax else _start_without_jax(config.recipe)
        if several:  # they have been joined by now, and the first one is known
            lock.enter_context(workdir_lock.held_by_first(workdir))
        if own_process:
            stop_signals.raise_exceptions()
        for note in notes:
            logging.getLogger("jaxplm").info("%s", note)
        run(config, workdir, command)


def _start(recipe: str, own_process: bool) -> Callable[[Config, Path, str], None]:
    """Start JAX, join the processes of the run, set the log up, and return what runs the recipe."""
    from jaxplm.devices.start import libraries_starting, start_jax

    start_jax()
    from jaxplm.data.corpus.tokenize import default_cache
    from jaxplm.devices import processes
    from jaxplm.devices.compilation_cache import keep_compiled
    from jaxplm.devices.without_torch import import_transformers
    from jaxplm.reporting import console

    keep_compiled(default_cache())
    console.setup(enabled=processes.is_first())
    with libraries_starting():
        if own_process:
            import_transformers()
        return recipe_of(recipe)


def _start_without_jax(recipe: str) -> Callable[[Config, Path, str], None]:
    """Set the log up, and return what runs a recipe that asks for no device."""
    from jaxplm.reporting import console

    console.setup()
    return recipe_of(recipe)


def console_script() -> None:
    """Run this process's command line and exit: `jaxplm`, and `python -m jaxplm.main`."""
    standard_streams.open_closed()
    stop_signals.end_at_once()
    os.environ["MPLBACKEND"] = "agg"  # the import of matplotlib fails at a name that it does not know
    status = main(sys.argv, own_process=True)
    standard_streams.flush()
    sys.exit(status)


if __name__ == "__main__":
    console_script()
