"""Lines, bar, metrics.jsonl, event files, tables."""

import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from messages import refuses
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from jaxplm.reporting import console, metric_log, numbers
from jaxplm.reporting import progress as progress_module
from jaxplm.reporting.progress import Progress


@pytest.fixture
def own_logger() -> logging.Logger:
    """The package's logger, which conftest.py resets before each test."""
    return logging.getLogger("jaxplm")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


# -------------------------------------------------------------------- lines


def test_lines_are_plain_and_warnings_say_so(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    console.setup()
    console.setup()  # once more must not print everything twice
    own_logger.info("문장 %d", 1)
    own_logger.warning("3 texts had unreadable bytes")
    captured = capsys.readouterr()
    assert captured.out == "문장 1\nwarning: 3 texts had unreadable bytes\n"
    assert captured.err == ""


@pytest.mark.parametrize("enabled, shown", [(True, "inf wrn bad"), (False, "bad")])
def test_other_processes_say_nothing_but_errors(enabled: bool, shown: str) -> None:
    code = f"""
        import logging
        from jaxplm.reporting import console
        console.setup(enabled={enabled})
        log = logging.getLogger("jaxplm")
        log.debug("dbg"); log.info("inf"); log.warning("wrn"); log.error("bad")
    """
    assert re.findall("dbg|inf|wrn|bad", run(code).stdout) == shown.split()


@pytest.mark.slow
def test_libraries_are_silent() -> None:
    code = """
        from jaxplm.reporting import console
        console.setup()
        import logging, warnings
        import absl.logging
        from datasets.utils import logging as datasets_logging
        warnings.warn("a library's warning")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        absl.logging.warning("orbax says"); absl.logging.error("orbax fails")
        logging.getLogger("orbax.checkpoint").warning("x")
        logging.getLogger("transformers.modeling").warning("x")
        logging.getLogger("datasets.load").warning("x")
        import datasets, huggingface_hub.utils
        assert datasets.utils.are_progress_bars_disabled()
        assert huggingface_hub.utils.are_progress_bars_disabled()
    """
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_console_without_korean_and_a_closed_pipe_do_not_end_the_run() -> None:
    code = "from jaxplm.reporting import console; console.setup(); console.log.info('학습')"
    done = run(code, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "") and "\\ud559" in done.stdout
    code = """
        import sys
        from jaxplm.reporting import console
        console.setup()
        for i in range(20000):
            console.log.info("line %d", i)
        print("went on", file=sys.stderr)
    """
    pipe = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert pipe.stdout is not None and pipe.stderr is not None
    assert pipe.stdout.readline() == "line 0\n"
    pipe.stdout.close()
    assert pipe.stderr.read() == "went on\n"
    assert pipe.wait() == 0
    pipe.stderr.close()


# -------------------------------------------------------------------- metrics


def test_rows_as_written(tmp_path: Path) -> None:
    with metric_log.MetricLog(tmp_path / "run") as metrics:
        metrics.write(0, "validation", {"loss": 2.5, "perplexity": np.float64(12.18), "accuracy": jnp.float32(0.5)})
        metrics.write(100, "train", {"loss": float("nan"), "seconds": np.float32("inf"), "tokens": np.int64(7)})
        # Flushed: another process can follow the file.
        text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 0, "split": "validation", "loss": 2.5, "perplexity": 12.18, "accuracy": 0.5},
        {"step": 100, "split": "train", "loss": None, "seconds": None, "tokens": 7},
    ]
    assert list(json.loads(text.splitlines()[0]))[:2] == ["step", "split"]
    assert metric_log.read_metrics(tmp_path / "run" / "metrics.jsonl")[1]["loss"] is None


def test_a_resumed_run_has_every_row_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with metric_log.MetricLog(tmp_path) as metrics:
        for step in range(0, 60, 10):
            metrics.write(step, "train", {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 60, "spl')  # killed while writing
    with metric_log.MetricLog(tmp_path, resume_from=30) as metrics:
        assert [row["step"] for row in metric_log.read_metrics(path)] == [0, 10, 20, 30]
        for step in (40, 50, 60):
            metrics.write(step, "train", {"loss": -1.0})
    rows = metric_log.read_metrics(path)
    assert [row["step"] for row in rows] == list(range(0, 70, 10))
    assert [row["loss"] for row in rows[-4:]] == [30.0, -1.0, -1.0, -1.0]
    with metric_log.MetricLog(tmp_path):  # a new run
        assert path.read_text() == ""
    assert not list(tmp_path.glob("*.partial"))


def test_the_other_processes_write_nothing(tmp_path: Path) -> None:
    with metric_log.MetricLog(tmp_path / "run", enabled=False) as metrics:
        metrics.write(1, "train", {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_metrics_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\n[1]\n{"step": 2, "split": "train"}\n')
    with refuses("metrics.jsonl", "line 2"):
        metric_log.MetricLog(tmp_path)


def read_events(directory: Path) -> Iterator[Any]:
    """The records of an event file: length, its checksum, the message, its checksum."""
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_events(tmp_path: Path) -> None:
    with metric_log.MetricLog(tmp_path, resume_from=30) as metrics:
        metrics.write(40, "train", {"loss": 1.5, "learning_rate": None or float("nan")})
        metrics.write(40, "validation", {"loss": 2.5})
    events = list(read_events(tmp_path / "tensorboard"))
    scalars = {value.tag: (event.step, value.simple_value) for event in events for value in event.summary.value}
    assert scalars == {"train/loss": (40, 1.5), "validation/loss": (40, 2.5)}
    assert [event.step for event in events if event.HasField("session_log")] == [31]  # forget what came after 30


# -------------------------------------------------------------------- progress


def test_without_a_terminal_lines_come_every_so_often(
    own_logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    console.setup()
    with Progress(100, 50, log_every=20) as progress:
        for step in range(51, 101):
            now[0] += 100.0 if step == 51 else 2.0  # the first one compiles
            progress.update(step, loss=3.21456, tokens_per_second=12345.4)
            if step == 70:
                with progress.paused():
                    now[0] += 1000
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 60/100  loss 3.215  12,345 tokens/s  ETA 1:20",
        "step 80/100  loss 3.215  12,345 tokens/s  ETA 0:40",
        "step 100/100  loss 3.215  12,345 tokens/s  ETA 0:00",
    ]


def test_progress_of_other_processes_and_of_a_lost_loss(own_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    console.setup()
    with Progress(2, log_every=1, enabled=False) as progress:
        progress.update(1, loss=1.0)
    with Progress(2, log_every=1) as progress:
        assert progress.seconds_left is None
        progress.update(1, loss=float("nan"))
    assert capsys.readouterr().out == "step 1/2  loss not finite\n"


def on_terminal(size: tuple[int, int], kind: str) -> str:
    """What a run of 30 steps prints on a terminal of so many lines and columns."""
    code = textwrap.dedent("""
        import logging, time
        from jaxplm.reporting import console
        from jaxplm.reporting.progress import Progress
        console.setup()
        with Progress(30, log_every=10) as progress:
            for step in range(1, 31):
                time.sleep(0.02)
                progress.update(step, loss=1.25, tokens_per_second=1000.0)
                if step == 15:
                    console.log.info("validation loss 1.5")
        console.log.info("done")
    """)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env={**os.environ, "TERM": kind})
    os.close(theirs)
    output = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(ours)
    assert child.wait() == 0
    return output.decode()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(0, 0), (24, 90)])  # some containers give a terminal without a size
def test_on_a_terminal_there_is_a_bar_and_lines_stand_above_it(size: tuple[int, int]) -> None:
    text = on_terminal(size, "xterm")
    assert re.search(r"\d+% .*━.* step \d+/30  loss 1.25  1,000 tokens/s  ETA 0:0", text)
    assert re.search(r"\r\x1b\[2Kvalidation loss 1.5\r\n", text)  # the bar was wiped first
    assert not re.search(r"step 10/30  loss[^\r]*\r\n", text)  # no lines beside the bar
    assert re.search(r"\x1b\[2Kdone\r\n$", text)  # and nothing is left of it at the end


@pytest.mark.slow
def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    lines = on_terminal((24, 90), "dumb").splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 10/30", "validation loss 1.5", "step 20/30", "step 30/30", "done"]


# -------------------------------------------------------------------- texts


def test_tables_are_aligned_by_cells() -> None:
    assert console.plain_table([("model", "builtin:tiny"), ("모델", "한국어 BERT"), ("e\u0301", "x")]) == (
        "model  builtin:tiny\n모델   한국어 BERT\ne\u0301      x"
    )
    assert console.plain_table([("", "before", "after"), ("perplexity", "20.11", "8.2")], header=True) == (
        "            before  after\n----------  ------  -----\nperplexity   20.11    8.2"
    )
    assert console.plain_table([]) == ""
    with pytest.raises(ValueError, match="shorter"):
        console.plain_table([("a", "b"), ("c",)])


@pytest.mark.parametrize(
    "number, text",
    [(0, "0"), (812, "812"), (9_999, "9,999"), (12_345, "12.3 K"), (999_949, "1.00 M"), (4_712_345, "4.71 M"),
     (99_960_000, "100 M"), (1.31e9, "1.31 B")],
)  # fmt: skip
def test_count(number: float, text: str) -> None:
    assert numbers.count(number) == text


def test_duration() -> None:
    assert [numbers.duration(x) for x in (0.4, 59.6, 130, 3723)] == ["0:00", "1:00", "2:10", "1:02:03"]
