"""The check for vulnerable packages fails for what it found, and for nothing else."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT

HOLE = {"id": "PYSEC-1", "fix_versions": ["2.1"]}


def answer(*holes: dict) -> str:
    return json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": list(holes)}, {"name": "b", "skip_reason": "x"}]})


@pytest.mark.slow
@pytest.mark.parametrize(("printed", "status", "expected", "says"), [
    (answer(), 0, 0, "no known vulnerability in 2 packages"),
    (answer(HOLE), 1, 1, "a 1: PYSEC-1, repaired in 2.1"),
    ("", 1, 0, "nothing was checked: its database is not reachable (no route)"),
    ("", 124, 0, "nothing was checked: its database did not answer within 20 seconds"),  # as `timeout` ends
])
def test_what_the_audit_says(tmp_path, printed, status, expected, says):
    (tmp_path / "answer").write_text(printed)
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f'#!/bin/sh\ncat "{tmp_path}/answer"\necho "no route" >&2\nexit {status}\n')
    stand_in.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    done = subprocess.run([ROOT / ".ci" / "audit"], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == expected, done.stderr
    assert done.stdout == f"pip-audit: {says}\n"
