"""The command: flags → config → recipe.

    python -m jaxplm.main --config=configs/dapt.py [--workdir=DIR] [--config.<field>=<value> ...]
"""

import errno
import importlib
import os
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from jaxplm.devices.huge_pages import restart_with_huge_pages

if __name__ == "__main__":
    restart_with_huge_pages()  # before the imports that take time

# Quiet libraries: set before they are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from absl import flags
from ml_collections import config_flags

from jaxplm.config import Config, check_field, field_infos, flatten, validate
from jaxplm.devices.without_torch import import_transformers
from jaxplm.errors import Interrupted, UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/<recipe>.py", lock_config=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run is kept; default: runs/<recipe>")

# Recipe → the module with its `run(config, workdir, command)`. Imported by name: a wrong flag is answered before JAX is imported.
RECIPES = {
    "dapt": "jaxplm.recipes.pretrain.recipe",
    "tapt": "jaxplm.recipes.pretrain.recipe",
    "scratch": "jaxplm.recipes.pretrain.recipe",
    "extend_vocab": "jaxplm.recipes.pretrain.recipe",
    "exbert": "jaxplm.recipes.pretrain.recipe",
    "finetune": "jaxplm.recipes.finetune.recipe",
    "feature_extraction": "jaxplm.recipes.finetune.recipe",
    "evaluate": "jaxplm.recipes.evaluate.recipe",
    "embed": "jaxplm.recipes.embed.recipe",
}


# ml_collections looks up how a field is parsed by its annotation, and does not know `Literal[...]` or `Annotated[int, Ge(1)]`.
_PARSERS = {int: flags.IntegerParser(), float: flags.FloatParser(), str: flags.ArgumentParser()}
for _info in field_infos().values():
    if _info.annotation is not _info.value_type and _info.value_type in _PARSERS:
        config_flags.register_flag_parser_for_type(_info.annotation, _PARSERS[_info.value_type])


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; every mistake becomes one line of a `UserError`."""
    files = []
    for position, argument in enumerate(argv):
        if override := re.match(r"--?config\.([^=]*)", argument):
            check_field(override[1])
        if given := re.match(r"--?config(?:=(.*))?$", argument):
            path = given[1] if given[1] is not None else argv[position + 1] if position + 1 < len(argv) else ""
            files.append(Path(path))
    if len(files) > 1:
        raise UserError(f"--config is given {len(files)} times: {', '.join(map(str, files))}")
    for path in files:
        _check_config_file(path)
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(_readable(error)) from None
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; fields are given as --config.<field>=<value>")
    if flags.FLAGS.config is None:
        raise UserError("no --config given; try --config=configs/dapt.py")
    return rest


def _check_config_file(path: Path) -> None:
    """Run it once by ourselves: ml_collections would answer a mistake in it with a traceback or an empty message."""
    if not path.is_file():
        known = sorted(str(p) for p in Path("configs").glob("*.py"))
        raise UserError(f"--config={path}: no such file" + (f"; there are {', '.join(known)}" if known else ""))
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


def _readable(error: Exception) -> str:
    text = str(error)
    if (wrong := re.match(r"flag --config\.(\S+?)=(.*?): (.*)", text, re.S)) and wrong[1] in field_infos():
        return f"{wrong[1]}={wrong[2]}: must be {field_infos()[wrong[1]].possible}"
    return text.split("\n")[-1] if "Traceback" in text else text.split("\n")[0]


def resolve(config: Config, overridden: set[str]) -> Config:
    """A checked config. Giving one of train.steps and train.epochs takes the recipe's own choice of the other away."""
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{one}" in overridden and f"train.{other}" not in overridden:
            setattr(config.train, other, None)
    if config.recipe == "evaluate" and "data.test" in overridden and "data.validation" not in overridden:
        config.data.validation = ""  # the recipe's own stands in where no set is given
    if config.task.kind in ("tag", "qa") and "task.pooling" not in overridden:
        config.task.pooling = "cls"  # the recipe's own is for texts; these look at every token
    if config.recipe not in RECIPES:
        raise UserError(f"recipe={config.recipe!r}: must be one of {', '.join(RECIPES)}")
    validate(config)
    return config


def command_line(argv: list[str]) -> str:
    """The command as it can be typed again."""
    return " ".join(["python -m jaxplm.main", *map(shlex.quote, argv[1:])])


def recipe_of(name: str) -> Callable[[Config, Path, str], None]:
    """Import the recipe `name`, a key of `RECIPES`, and return its `run`."""
    return importlib.import_module(RECIPES[name]).run


def main(argv: list[str]) -> int:
    """Run the recipe; returns the exit status (see the module's interface: 0, 2, 130, 143)."""
    if any(re.fullmatch(r"--?h(elp)?", argument) for argument in argv[1:]):
        print(__doc__)
        print("Fields and their defaults:")
        for name, value in flatten(Config()):
            print(f"  --config.{name}={value!r}")
        return 0
    try:
        parse(argv)
        config = resolve(flags.FLAGS.config, set(config_flags.get_override_values(flags.FLAGS["config"])))
        from jaxplm.data.corpus.tokenize import default_cache
        from jaxplm.devices import processes
        from jaxplm.devices.compute import keep_compiled
        from jaxplm.reporting import console

        processes.join_processes()
        keep_compiled(default_cache())
        console.setup(enabled=processes.is_first())
        if __name__ == "__main__":
            import_transformers()
        workdir = Path(_WORKDIR.value or Path("runs") / config.recipe)
        recipe_of(config.recipe)(config, workdir, command_line(argv))
    except UserError as error:
        print(f"jaxplm: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"jaxplm: no disk space{f' for {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"jaxplm: {stopped}", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print("jaxplm: stopped by Ctrl-C", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
