"""metrics.jsonl and TensorBoard event files of a run."""

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxplm.data import atomic
from jaxplm.data.checksums import Damaged, parse_json
from jaxplm.devices.without_torch import hidden_torch
from jaxplm.errors import UserError


class MetricLog:
    """Writes `metrics.jsonl` and `tensorboard/` of a run.

    Args:
      workdir: the run's directory; created if it does not exist.
      enabled: False writes nothing (all processes but the first).
      resume_from: the step from whose state the run resumes. Rows of later steps will be written again, so they are removed now: a
        run that was killed and resumed has each row once. None: a new run, all rows are removed.

    Raises:
      UserError: the workdir has a metrics.jsonl that is not one.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, enabled: bool = True, resume_from: int | None = None) -> None:
        self.path = Path(workdir) / "metrics.jsonl"
        self._file = None
        self._board = None
        if not enabled:
            return
        with hidden_torch():  # imported here: it pulls in protobuf, which embedding does not need
            from tensorboardX import SummaryWriter

        self.path.parent.mkdir(parents=True, exist_ok=True)
        last = -1 if resume_from is None else resume_from
        if self.path.exists():
            # Test rows are written at the very end: a run that resumes had not reached it, or reaches it again.
            _rewrite(self.path, [row for row in read_metrics(self.path) if row["step"] <= last and row["split"] != "test"])
        else:
            _sums_of(self.path).unlink(missing_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._sums = _sums_of(self.path).open("a", encoding="ascii")
        # TensorBoard forgets what older event files say about steps from purge_step on.
        self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=last + 1, flush_secs=30, write_to_disk=True)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append one row, `{"step": step, "split": split, **values}`.

        Args:
          step: number of the step whose state was measured.
          split: train, validation, test or general.
          values: numbers (Python's, numpy's or jax scalars); NaN and infinities become null.
        """
        if self._file is None or self._board is None:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        line = _line({"step": int(step), "split": split, **numbers})
        for file, text in ((self._file, line), (self._sums, _sum(line))):
            file.write(text)
            file.flush()
        for name, value in numbers.items():
            if value is not None:
                self._board.add_scalar(f"{split}/{name}", value, int(step))

    def close(self) -> None:
        """Flush and close the files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._sums.close()
            self._board.close()
            self._file = self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, in order; a null is None.

    The last line of a run that was killed may be incomplete: it is left out.

    Raises:
      UserError: another line is not a row, or not the one that was written.
    """
    path = Path(path)
    rows = []
    lines = path.read_text("utf-8", errors="replace").split("\n")
    sums = _sums_of(path).read_text("ascii", errors="replace").splitlines(keepends=True) if _sums_of(path).exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip() and number == len(lines):
            break
        try:
            row = parse_json(line, str(path))
        except Damaged:
            row = None
        if number <= len(sums) and number < len(lines) and _sum(line + "\n") != sums[number - 1]:
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("split"), str):
            rows.append(row)
        elif number < len(lines) or number <= len(sums):  # a line that was being written has no newline and no checksum
            raise UserError(f"{path}: line {number} is not the row of metrics that was written; remove the file to resume without the rows"
                            f" so far, remove {path.parent} to start again, or choose another --workdir")
    return rows


def _rewrite(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [_line(row) for row in rows]
    _sums_of(path).unlink(missing_ok=True)  # of the rows before
    atomic.write_text(path, "".join(lines))
    atomic.write_text(_sums_of(path), "".join(map(_sum, lines)))


def _sums_of(path: Path) -> Path:
    """Return the file with a checksum per row. A row without one was written by an earlier version, or just before a kill."""
    return path.with_name(f".{path.stem}.crc32")


def _sum(line: str) -> str:
    return f"{zlib.crc32(line.encode()):08x}\n"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _number(value: Any) -> int | float | None:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
