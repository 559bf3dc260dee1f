"""Run a recipe in this process."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from jaxplm import main
from jaxplm.config import Config, as_flag, check_field, check_value, field_infos
from jaxplm.devices.stop_signals import Terminated
from jaxplm.errors import REPORT, Interrupted, UserError, explain
from jaxplm.library.results import RunResult, read_result
from jaxplm.reporting import console


def run(recipe: str | os.PathLike[str], workdir: str | os.PathLike[str] | None, fields: Mapping[str, Any]) -> RunResult:
    """Run a recipe and return its result; see `jaxplm.run`."""
    with console.settings_kept(), _command_errors():
        given = os.fspath(recipe)
        config = main.load_config(main.find_config(given))
        values = set_fields(config, fields)
        replaced = main.resolve(config, set(values))
        place = Path(workdir) if workdir is not None else Path("runs") / config.recipe
        command = _command(given, workdir, values)
        main.run_config(config, place, command, replaced, own_process=False)
        return read_result(config, place, command)


def set_fields(config: Config, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Set fields of a config, by their dotted names, as flags do; return them with the values that they have now.

    A list is a tuple, a path is text, and numbers may be NumPy's.

    Raises:
      UserError: a field that there is not, or a value that it may not have.
    """
    for name in fields:
        check_field(str(name))
    values = {name: _typed(name, value) for name, value in fields.items()}
    for name, value in values.items():
        check_value(name, value)
        *sections, leaf = name.split(".")
        section: Any = config
        for one in sections:
            section = getattr(section, one)
        setattr(section, leaf, value)
    return values


def _typed(name: str, value: Any) -> Any:
    """Return a value as the field's flag would give it; a value of a wrong type is returned as it is."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    value = _plain(value)
    return float(value) if type(value) is int and field_infos()[name].value_type is float else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, PurePath) else value


def _command(recipe: str, workdir: str | os.PathLike[str] | None, values: Mapping[str, Any]) -> str:
    """Return the command that does the same."""
    place = [] if workdir is None else [f"--workdir={os.fspath(workdir)}"]
    return main.command_line(["", f"--config={recipe}", *place, *(as_flag(name, value) for name, value in values.items())])


@contextlib.contextmanager
def _command_errors():
    """Raise a `UserError` for what the command answers with one line, and `KeyboardInterrupt` where it was stopped.

    Raises:
      UserError: a mistake of the user's, or of the machine's.
      KeyboardInterrupt: stopped by Ctrl-C.
      Terminated: stopped by SIGTERM.
    """
    try:
        yield
    except Interrupted as stopped:
        raise (Terminated if stopped.status == 143 else KeyboardInterrupt)(str(stopped)) from None
    except UserError:
        raise
    except Exception as error:
        if line := explain(error):
            raise UserError(line) from error
        error.add_note(REPORT)
        raise
