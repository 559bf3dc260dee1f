"""`comparison.json`: what is written comes back, and a damaged file is one line."""

import base64
import dataclasses
import json
import math
import tracemalloc
import zlib
from pathlib import Path

import comparison_examples as examples
import numpy as np
import pytest
from messages import refuses

from jaxplm.errors import UserError
from jaxplm.reporting.comparison import stored
from jaxplm.reporting.comparison.comparison import Comparison
from jaxplm.reporting.comparison.stored import read_comparison, write_comparison


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return examples.hostile(examples.comparison(seeds=2))


@pytest.fixture()
def file(tmp_path: Path, comparison: Comparison) -> Path:
    write_comparison(tmp_path / "comparison.json", comparison)
    return tmp_path / "comparison.json"


def plain(value: object) -> object:
    """A comparison as lists, with arrays and NaN as texts, which are equal to themselves."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tolist()}"
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def test_what_is_written_comes_back(file: Path, comparison: Comparison) -> None:
    again = read_comparison(file)
    assert plain(dataclasses.asdict(again)) == plain(dataclasses.asdict(comparison))
    assert isinstance(again.ways, tuple) and isinstance(again.ways[1].runs[0].curve[0], tuple)
    assert any(run.parts is not None for way in again.ways for run in way.runs)
    before = file.read_bytes()
    write_comparison(file, again)
    assert file.read_bytes() == before


def test_the_file_is_strict_json(file: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(file.read_text("ascii"), parse_constant=refuse)


def changed(file: Path, change: object, *place: object) -> None:
    """Put `change` at a place of the file's content."""
    content = json.loads(file.read_text())
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = change
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "place", "named"),
    [
        ("five", ("comparison", "ways", 1, "runs", 0, "seed"), ("comparison.ways[1].runs[0].seed", "five")),
        (True, ("comparison", "ways", 1, "runs", 0, "seed"), ("comparison.ways[1].runs[0].seed",)),
        (None, ("comparison", "metric"), ("comparison.metric",)),
        ([1], ("comparison", "encoders", 0, "general"), ("comparison.encoders[0].general",)),
        ({}, ("comparison", "ways", 0), ("comparison.ways[0]", "name")),
        (3, ("comparison", "nothing"), ("nothing",)),
        (10**400, ("comparison", "ways", 1, "learning_rate"), ("comparison.ways[1].learning_rate",)),
        (2, ("format",), ("format", "2")),
        (
            "median",
            ("comparison", "ways", 1, "runs", 0, "parts", "formula"),
            ("comparison.ways[1].runs[0].parts", "median"),
        ),
    ],
)
def test_a_wrong_entry_is_named(file: Path, change: object, place: tuple[object, ...], named: tuple[str, ...]) -> None:
    changed(file, change, *place)
    with refuses("comparison.json", *named):
        read_comparison(file)


@pytest.mark.parametrize(
    "array",
    [
        {},
        {"dtype": "object", "shape": [1], "zlib": ""},
        {"dtype": "int64", "shape": [10**12], "zlib": ""},
        {"dtype": "int64", "shape": [-1], "zlib": ""},
        {"dtype": "int64", "shape": [2], "zlib": "eJwDAAAAAAE="},
        [1],
        {"dtype": "int64", "shape": "a", "zlib": "!"},
    ],
)
def test_a_damaged_array_is_named(file: Path, array: object) -> None:
    place = array_place(file)
    changed(file, array, *place)
    with refuses("comparison.json", "ways[1].runs[0].parts.values"):
        read_comparison(file)


def array_place(file: Path) -> tuple[object, ...]:
    found = json.loads(file.read_text())["comparison"]["ways"][1]["runs"][0]["parts"]
    assert "zlib" in found["values"]
    return ("comparison", "ways", 1, "runs", 0, "parts", "values")


def test_damaged_files_are_one_line(file: Path) -> None:
    rng = np.random.default_rng(0)
    content = file.read_bytes()
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(0, len(content))] if rng.random() < 0.3 else content)
        for at in rng.integers(0, max(1, len(damaged)), 4) if damaged else ():
            damaged[at] = rng.integers(0, 256)
        file.write_bytes(damaged)
        try:
            read_comparison(file)
        except UserError as error:
            assert "comparison.json" in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe", b"null", b'{"format": 1, "comparison": []}']
)
def test_files_that_hold_no_comparison(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "comparison.json").write_bytes(content)
    with refuses("comparison.json"):
        read_comparison(tmp_path / "comparison.json")


def test_a_missing_file(tmp_path: Path) -> None:
    with refuses("comparison.json"):
        read_comparison(tmp_path / "comparison.json")


def test_a_file_beyond_the_limit_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST_BYTES", 1000)
    with refuses("comparison.json", "1,000"):
        read_comparison(file)


def test_compressed_bytes_are_read_only_as_far_as_the_shape_says(file: Path) -> None:
    """Zeros compress a thousandfold: a small file must not fill the memory."""
    many = base64.b64encode(zlib.compress(bytes(2**26), 9)).decode()
    changed(file, {"dtype": "int64", "shape": [1, 1], "zlib": many}, *array_place(file))
    tracemalloc.start()
    with refuses("parts.values"):
        read_comparison(file)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
