"""What a run tells: lines and a progress bar on stdout, rows in metrics.jsonl, TensorBoard event files."""

import contextlib
import io
import logging
import math
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from jaxplm.scores.names import SHARES
from jaxplm.scores.sums import NOT_SCORES

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
    """Sends the messages of jaxplm to stdout as plain lines and silences the libraries.

    Call it before the libraries are imported, if that can be arranged; calling it again changes the settings.

    Args:
      enabled: False in all processes but the first, which then say nothing but errors.
    """
    log.setLevel(logging.INFO if enabled else logging.ERROR)
    log.propagate = False
    for handler in [handler for handler in log.handlers if isinstance(handler, LineHandler)]:
        log.removeHandler(handler)
    log.addHandler(LineHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A console that cannot show Korean shows escapes; it must not end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _LIBRARIES:
        # Above ERROR: what fails is raised as well, and reported once by us and not with a traceback.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not sys.warnoptions:  # python -W ... or PYTHONWARNINGS wins
        warnings.simplefilter("ignore")


class LineHandler(logging.Handler):
    """Plain lines on stdout, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        _print(text)


def _print(text: str) -> None:
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # `... | head` was closed: the run goes on, and what it says from here on goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """How far a loop is: a bar where stdout is a terminal, a line every `log_every` steps elsewhere.

    Use it as a context manager, or close it: the bar is taken off the terminal at the end.

    Args:
      total: steps of the whole run.
      start: the step a resumed run begins after.
      log_every: steps between two lines where there is no terminal.
      enabled: False shows nothing (all processes but the first).
    """

    def __init__(self, total: int, start: int = 0, *, log_every: int = 100, enabled: bool = True) -> None:
        self._total, self._step, self._log_every, self._enabled = total, start, log_every, enabled
        self._seconds_per_step: float | None = None
        self._last: float | None = None  # when `_step` was reached; None until the first update
        sized = _columns() > 0  # some containers give a terminal without a size, where tqdm would draw nothing
        self._bar = tqdm(
            total=total,
            initial=start,
            file=sys.stdout,
            disable=None if enabled else True,  # None: only where stdout is a terminal
            leave=False,
            dynamic_ncols=sized,
            ncols=None if sized else 80,
            nrows=None if sized else 24,
            bar_format="{percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt}{postfix}",
        )

    def update(self, step: int, *, loss: float | None = None, tokens_per_second: float | None = None) -> None:
        """Says that `step` is done.

        Args:
          step: counted from 1, the one last done.
          loss: its training loss, if it is known already.
          tokens_per_second: real tokens (no padding) a second, over all devices.
        """
        now = time.monotonic()
        if self._last is not None and step > self._step:
            # The first step compiles and is not counted; later ones are smoothed over some twenty updates.
            latest = (now - self._last) / (step - self._step)
            old = self._seconds_per_step
            self._seconds_per_step = latest if old is None else 0.95 * old + 0.05 * latest
        before, self._step, self._last = self._step, step, now
        if not self._enabled:
            return
        parts = []
        if loss is not None:
            parts.append(f"loss {loss:.4g}" if math.isfinite(loss) else "loss not finite")
        if tokens_per_second is not None:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if (left := self.seconds_left) is not None:
            parts.append(f"ETA {duration(left)}")
        if not self._bar.disable:
            self._bar.set_postfix_str("  ".join(parts), refresh=False)
            self._bar.update(step - before)
        elif step // self._log_every > before // self._log_every or step == self._total:
            log.info("%s", "  ".join([f"step {step}/{self._total}", *parts]))

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the last step, without evaluations; None before two steps were seen."""
        if self._seconds_per_step is None:
            return None
        return self._seconds_per_step * max(self._total - self._step, 0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps what happens inside (an evaluation, a checkpoint) out of the estimate."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self._last is not None:
                self._last += time.monotonic() - began

    def close(self) -> None:
        """Takes the bar off the terminal."""
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _columns() -> int:
    """Width of the terminal on stdout; 0 if there is none or it has no size."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0


def summary_table(rows: Sequence[Sequence[str]], *, header: bool = False) -> str:
    """Aligned plain text, one row a line.

    Args:
      rows: of equal length: (name, value), or more columns.
      header: the first row is a heading: it is underlined, and all columns but the first stand to the right.

    Returns:
      Lines without a newline at the end; characters that take two cells (Korean, Chinese) count as two.
    """
    if not rows:
        return ""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            pad = " " * (width - display_width(cell))
            cells.append(pad + cell if header and i else cell + pad)
        return "  ".join(cells).rstrip()

    lines = [line(row) for row in rows]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def in_words(metrics: Mapping[str, Any]) -> str:
    """ "loss 4.1234, perplexity 61.77, accuracy 32.1%": the scores of one evaluation, without what is none."""
    parts = []
    for name, value in metrics.items():
        if name not in NOT_SCORES and value is not None:
            shown = f"{value:.1%}" if name in SHARES else f"{value:.2f}" if name == "perplexity" else f"{value:.4f}"
            parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def display_width(text: str) -> int:
    """Cells that a text takes in a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2 if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )  # fmt: skip


def duration(seconds: float) -> str:
    """ "2:10", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: float) -> str:
    """ "812", "12.3 K", "4.71 M", "1.31 B": three significant digits."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= 0.9995 * size and number >= 1e4:
            value = number / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{number:,.0f}"
