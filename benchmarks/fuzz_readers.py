"""Read damaged and odd data files, and report what is neither read nor refused by one line.

    python benchmarks/fuzz_readers.py 20000 1        cases, seed

A case is a small valid file of some format, with odd values, other encodings, changed bytes and damaged compression. It is
read as a corpus, as one text per row, or as the rows of a task with the names of its labels. A fault is an exception other
than `UserError`; a hang takes longer than ten seconds. The same seed gives the same cases. Inputs of faults are kept in
the directory that is printed.
"""

import argparse
import csv
import gzip
import io
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import zstandard

from jaxplm.config import Data
from jaxplm.data.labelled.label_forms import LabelForms, without_mark
from jaxplm.data.labelled.reading import read_examples
from jaxplm.data.sources.texts import open_texts
from jaxplm.errors import UserError
from jaxplm.tasks.kinds import KINDS

SECONDS = 10
LONGEST_MESSAGE = 1000

_WORDS = (
    "the", "gene", "BRCA1", "binds", "한국어", "영화ㅋㅋ", "café", "cafe\u0301", '"so', 'said"', "it's", "3.14", "NaN",
    "null", "\ufeff", "\u200b", "\u2028", "𝕏", "-", "#", "a,b", "\u00a0", "좋다.", "\x0c", "a\tb",
)
_ODD = (
    None, True, False, 0, 1, -1, 0.5, 1.0, float("nan"), float("inf"), -float("inf"), 10**400, -(10**19), 2**63, "",
    " ", "\ud83d", "\x00", "\ufdd0", "nan", "1e999", "inf", "１", "[0, 1]", "a|b||", "true", "FALSE", "x" * 3000, [],
    {}, [[]], [None], [1, 0], [0.0, 1.0], ["a", {"b": 1}], {"text": []}, {"a": {"b": [1]}}, "1.0", "-1", "U+0000",
)
_TAGS = (
    "O", "B-X", "I-X", "E-X", "S-X", "B-", "I-Y", "B_X", "X_B", "1", "", "b-x", "NN",
)
_PIECES = (
    b"\x00", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b'"', b'""', b"'", b"\r", b"\r\n", b"\n\n", b"\t",
    b",", b";", b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"\\u00", b"NaN", b"-Infinity", b"1e999",
    b"7" * 5000, b"null", b"true", b"PAR1", b"PK\x03\x04", b"\x80\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd",
    b"-DOCSTART-", b"# ", b"\xe2\x80\xa8", b"\xc2\xa0", b"\xed\xa0\x80", b'{"data": [', b'"text": ', b"[" * 3000,
    b'{"a":' * 3000, b"(" * 50,
)
_ENCODINGS = ("utf-8",) * 8 + ("utf-16", "utf-8-sig", "utf-16-le", "cp949", "latin-1")


@dataclass(frozen=True)
class Case:
    """A file, and how it is read."""

    name: str
    content: bytes
    kind: str
    data: Data
    how: str  # "corpus", "rows", "labelled" or "unlabelled"


@dataclass
class Result:
    """What came of the cases."""

    read: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hangs: int = 0
    slowest: float = 0.0


def make_case(chance: random.Random) -> Case:
    """Return a random case."""
    kind = chance.choice(list(KINDS))
    rows = [_row(chance, kind) for _ in range(chance.randint(1, 9))]
    ending = chance.choice((".txt", ".jsonl", ".json", ".json", ".csv", ".tsv", ".parquet", ".conll"))
    content = _changed(chance, _WRITERS[ending](chance, rows))
    if ending != ".parquet" and chance.random() < 0.25:
        packing = chance.choice((".gz", ".zst"))
        content = gzip.compress(content, 1) if packing == ".gz" else zstandard.compress(content, 1)
        ending += packing
        if chance.random() < 0.5:
            content = _changed(chance, content)
    text = "context" if kind == "qa" else "tokens" if kind == "tag" else chance.choice(("text",) * 9 + ("other", "tags"))
    plain = ending.startswith((".txt", ".conll"))
    data = Data(text="text" if plain else text, text_pair=chance.choice(("", "", "" if plain else "other")),
                lines=chance.choice(("auto", "true", "false")))
    corpus = plain and kind != "tag"
    return Case("case" + ending, content, kind, data,
                chance.choice(("corpus", "rows", "unlabelled") if corpus else ("corpus", "rows", "labelled", "labelled", "unlabelled")))


def read_case(case: Case, directory: Path) -> None:
    """Write the file of a case and read it as the recipes do; raise what the readers raise."""
    path = directory / case.name
    path.write_bytes(case.content)
    data, kind = case.data, KINDS[case.kind]
    if case.how in ("corpus", "rows"):
        texts = open_texts(str(path), lines=data.lines, text=data.text, text_pair=data.text_pair, every_row=case.how == "rows")
        first = list(texts)
        assert first == list(texts), "a second reading differs"
        for text in first:
            text.encode()
        return
    examples = read_examples(str(path), kind, data, labelled=case.how == "labelled")
    lengths = {len(values) for values in (examples.rows, examples.texts, examples.labels, examples.faults)}
    assert lengths == {len(examples)}, "the columns of the rows differ in length"
    for text in (*examples.texts, *(examples.pairs or ()), *(examples.ids or ())):
        text.encode()
    if case.how == "labelled":
        train = examples.trainable()
        forms = LabelForms.of_training(train)
        train, other = forms.apply(train), without_mark(forms.apply(examples), train)
        labels = kind.label_set(train, [other])
        labels.ids(name for label in other.labels if isinstance(label, (list, tuple)) for name in label if isinstance(name, str))
        LabelForms.of_model(labels.names).apply(examples)


def run(cases: int, seed: int, directory: Path, report: Callable[[str], None] = print) -> Result:
    """Read cases and return what came of them; `report` gets a line for each new kind of fault.

    Args:
      cases: how many.
      seed: of all that is random.
      directory: where files are written; those of faults stay.
      report: takes a line.
    """
    result = Result()
    chance = random.Random(seed)
    for number in range(cases):
        case = make_case(chance)
        begin = time.monotonic()
        try:
            with _limit(SECONDS):
                read_case(case, directory)
            result.read += 1
        except UserError as error:
            result.refused += 1
            if "\n" in str(error) or len(str(error)) > LONGEST_MESSAGE:
                result.faults["message of several lines or over a thousand characters"] += 1
        except _Hang:
            result.hangs += 1
            _keep(case, directory, number)
            report(f"hang: case {number}, {case.name}, {case.kind}, {case.how}")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if "/jaxplm/" in frame.filename] or place
            fault = f"{type(error).__name__} in {Path(own[-1].filename).name}:{own[-1].lineno}"
            if fault not in result.faults:
                _keep(case, directory, number)
                report(f"fault: {fault}: case {number}, {case.name}, {case.kind}, {case.how}: {str(error)[:100]}")
            result.faults[fault] += 1
        result.slowest = max(result.slowest, time.monotonic() - begin)
    return result


class _Hang(BaseException):
    """A case takes too long."""


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _keep(case: Case, directory: Path, number: int) -> None:
    (directory / f"fault-{number}-{case.name}").write_bytes(case.content)


def _text(chance: random.Random) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(chance.randint(0, 10)))


def _row(chance: random.Random, kind: str) -> dict[str, Any]:
    """Return a row of a kind, with an odd value in it here and there."""
    text = _text(chance)
    if kind == "tag":
        tokens = [chance.choice(_WORDS) for _ in range(chance.randint(0, 7))]
        row: dict[str, Any] = {"tokens": tokens, "tags": [chance.choice(_TAGS) for _ in tokens]}
    elif kind == "qa":
        answer = chance.choice(text.split() or [""])
        pairs = [{"text": answer, "answer_start": text.find(answer)}] * chance.randint(0, 2)
        columns = {"text": [answer], "answer_start": [text.find(answer)]}
        row = {chance.choice(("id", "guid")): chance.choice(("q1", 2, None)), "question": _text(chance), "context": text,
               "answers": chance.choice((pairs, columns, None)), "is_impossible": chance.choice((True, False, "False", "yes", 0, None))}
    else:
        label = {"classify": ("good", "bad", 0, 1, "1.0", True, "True", -1), "regress": (1, 2.5, "3.0", -1),
                 "multilabel": (["a", "b"], "a|b", [], [0, 1, 1], [1.0, 0.0, 0.0], "c")}[kind]
        row = {"text": text, "other": _text(chance), "label": chance.choice(label)}
    while chance.random() < 0.3:
        name = chance.choice((*row, "text", "label", ""))
        cell = row.get(name)
        if isinstance(cell, list) and cell and chance.random() < 0.6:
            place = chance.randrange(len(cell))
            odd = chance.choice(_ODD)
            if isinstance(cell[place], dict):
                odd = {**cell[place], chance.choice(("text", "answer_start")): odd}
            row[name] = [*cell[:place], odd, *cell[place + 1 :]]
        elif chance.random() < 0.2:
            row.pop(name, None)
        else:
            row[name] = chance.choice(_ODD)
    return row


def _encoded(chance: random.Random, text: str) -> bytes:
    return text.encode(chance.choice(_ENCODINGS), "replace") if chance.random() < 0.8 else text.encode("utf-8", "surrogatepass")


def _as_json(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
    questions = [{name: row.get(name) for name in ("id", "guid", "question", "answers", "is_impossible") if name in row} for row in rows]
    articles = [{"title": "t", "paragraphs": [{"context": row.get("context"), "qas": [question]}]}
                for row, question in zip(rows, questions, strict=True)]
    value = chance.choice((rows, rows, {"data": rows}, rows[0]))
    if any("question" in row for row in rows):
        value = chance.choice((value, {"version": 1, "data": articles}, {"data": articles, "n": 12}))
    return _encoded(chance, json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, 1))))


def _as_lines(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
    return _encoded(chance, "\n".join(json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows))


def _as_cells(separator: str) -> Callable[[random.Random, list[dict[str, Any]]], bytes]:
    def write(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
        header = list({name: None for row in rows for name in row}) or ["text"]
        cells = [[str(row.get(name, ""))[:5000] for name in header] for row in rows]
        out = io.StringIO()
        if separator == "\t":
            out.write("\n".join("\t".join(row) for row in [header, *cells]))
        else:
            csv.writer(out, quoting=chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows([header, *cells])
        return _encoded(chance, out.getvalue())

    return write


def _as_sentences(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
    gap = chance.choice(("\t", " ", "\u00a0", "\t_\t"))
    sentences = ["\n".join(f"{chance.choice(_WORDS)}{gap}{chance.choice(_TAGS)}" for _ in range(chance.randint(1, 6))) for _ in rows]
    return _encoded(chance, "\n\n".join(sentences) + "\n")


def _as_text(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
    return _encoded(chance, chance.choice(("\n", "\n\n")).join(_text(chance) for _ in rows))


def _as_parquet(chance: random.Random, rows: list[dict[str, Any]]) -> bytes:
    names = list({name: None for row in rows for name in row}) or ["text"]
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            column = pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):  # values of several types
            column = pa.array([None if value is None else str(value)[:4000].encode("utf-8", "replace") for value in values])
            column = column if chance.random() < 0.1 else column.cast("string")
        if column.type == "string" and chance.random() < 0.1:  # characters that are none
            broken = pa.array([b"\xff\xfe"] * len(rows))
            column = pa.StringArray.from_buffers(len(rows), *broken.buffers()[1:])
        columns.append(column)
    if chance.random() < 0.05:
        names, columns = [*names, names[0]], [*columns, columns[0]]
    out = io.BytesIO()
    table = pa.Table.from_arrays(columns, names)
    try:
        pyarrow.parquet.write_table(table, out, compression=chance.choice(("NONE", "snappy", "zstd")))
    except pa.ArrowException:  # a struct without fields
        pyarrow.parquet.write_table(pa.table({"text": [_text(chance) for _ in rows]}), out)
    return out.getvalue()


_WRITERS: dict[str, Callable[[random.Random, list[dict[str, Any]]], bytes]] = {
    ".txt": _as_text, ".jsonl": _as_lines, ".json": _as_json, ".csv": _as_cells(","), ".tsv": _as_cells("\t"),
    ".parquet": _as_parquet, ".conll": _as_sentences,
}


def _changed(chance: random.Random, content: bytes) -> bytes:
    """Return the bytes with some of them replaced, removed, repeated, or others put between."""
    out = bytearray(content)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 4, 20))):
        at = chance.randrange(len(out) + 1)
        change = chance.randrange(6)
        if change == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            out[at:at] = chance.choice(_PIECES)
        elif change == 2:
            del out[at : at + chance.randint(1, 30)]
        elif change == 3:
            del out[at:]
        elif change == 4:
            out[at:at] = out[chance.randrange(len(out) + 1) :][:1000]
        else:
            out[at : at + 4] = chance.randbytes(4)
    return bytes(out)


def main() -> None:
    """Run the cases that the command line asks for; exit with 1 where one is a fault or a hang."""
    parser = argparse.ArgumentParser(description="Read damaged and odd data files.")
    parser.add_argument("cases", type=int)
    parser.add_argument("seed", type=int)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="jaxplm-fuzz-"))
    begin = time.monotonic()
    result = run(asked.cases, asked.seed, directory)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{asked.cases:,} cases in {time.monotonic() - begin:.0f} s: {result.read:,} read, {result.refused:,} refused,"
          f" {sum(result.faults.values())} faults, {result.hangs} hangs; slowest {result.slowest:.2f} s; largest memory {memory:,} MB;"
          f" files in {directory}")
    for fault, count in result.faults.most_common():
        print(f"{count:6,} {fault}")
    sys.exit(bool(result.faults or result.hangs))


if __name__ == "__main__":
    main()
