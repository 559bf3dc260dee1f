"""Log lines on stdout: plain text, one line per message, and tables of aligned columns."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from jaxplm.data.progress import on_terminal
from jaxplm.errors import visible

log = logging.getLogger("jaxplm")

# Read by the libraries when they are imported; a user who sets one of them keeps what was set.
_QUIET_ENVIRONMENT = {
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
_LIBRARIES = (
    "absl", "datasets", "filelock", "fsspec", "httpx", "huggingface_hub", "matplotlib", "orbax", "PIL",
    "tensorboardX", "transformers", "urllib3",
)  # fmt: skip


def setup(*, enabled: bool = True) -> None:
    """Send the messages of jaxplm to stdout as plain lines, and silence the libraries.

    Call it before the libraries are imported, if that can be arranged. Another call changes the settings.

    Args:
      enabled: False in all processes but the first: they print errors only.
    """
    log.setLevel(logging.INFO if enabled else logging.ERROR)
    log.propagate = False
    for handler in [handler for handler in log.handlers if isinstance(handler, LineHandler)]:
        log.removeHandler(handler)
    log.addHandler(LineHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A console that cannot show Korean shows escapes. It must not end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _LIBRARIES:
        # Above ERROR: a failure is raised as well, and we report it once and without a traceback.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not sys.warnoptions:  # python -W ... or PYTHONWARNINGS wins
        warnings.simplefilter("ignore")


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Put back at the end of this block what `setup` changes in loggers and warnings."""
    loggers = [log, *map(logging.getLogger, _LIBRARIES)]
    levels, handlers, propagate = [one.level for one in loggers], list(log.handlers), log.propagate
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
            log.handlers[:], log.propagate = handlers, propagate


class LineHandler(logging.Handler):
    """Prints plain lines on stdout, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        text = visible(self.format(record))  # names and labels come from data
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if on_terminal():
            import rich

            rich.get_console().print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
            return
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # `... | head` was closed: the run continues, and its further lines are dropped.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log_lines(text: str) -> None:
    """Log each line of a text as a message of its own."""
    for line in text.split("\n"):
        log.info("%s", line)


def log_table(rows: Sequence[Sequence[str]], *, header: bool = False) -> None:
    """Log a table; arguments as in `plain_table`."""
    log_lines(plain_table(rows, header=header))


def plain_table(rows: Sequence[Sequence[str]], *, header: bool = False) -> str:
    """Return rows as lines of aligned columns. Characters that take two cells (Korean, Chinese) count as two.

    Args:
      rows: of equal length: (name, value), or more columns.
      header: the first row is a heading: it is underlined, and all columns but the first are aligned to the right.

    Returns:
      The lines, without a newline at the end.

    Raises:
      ValueError: rows of different lengths.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    if not rows:
        return ""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    if header:
        rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    columns = [Column(justify="right" if header and number else "left", no_wrap=True) for number in range(len(widths))]
    table = Table.grid(*columns, padding=(0, 2))
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=sum(widths) + 2 * len(widths), color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))
