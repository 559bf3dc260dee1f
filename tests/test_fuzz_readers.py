"""Damaged and odd data files are read, or refused by one line."""

import logging
from pathlib import Path

import fuzz_readers
import pytest


@pytest.mark.slow
def test_damaged_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The script takes more cases and other seeds."""
    caplog.set_level(logging.CRITICAL, "jaxplm")
    said: list[str] = []
    result = fuzz_readers.run(1000, 14, tmp_path, said.append)
    assert (said, result.faults.total(), result.hangs) == ([], 0, 0)
    assert result.read > 300 and result.refused > 300


def test_faults_are_reported_with_their_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(case: fuzz_readers.Case, directory: Path) -> None:
        raise KeyError(case.name)

    monkeypatch.setattr(fuzz_readers, "read_case", read)
    said: list[str] = []
    result = fuzz_readers.run(3, 1, tmp_path, said.append)
    assert result.faults.total() == 3 and len(said) == 1 and "KeyError" in said[0]
    assert [path.read_bytes() for path in tmp_path.glob("fault-0-*")]


def test_cases_follow_from_the_seed() -> None:
    import random

    one, other = ([fuzz_readers.make_case(random.Random(seed)).content for seed in range(30)] for _ in range(2))
    assert one == other and len(set(one)) == 30
