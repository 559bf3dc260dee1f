"""Files that are broken, ambiguous or without end: one line that names the file and the place, in bounded memory."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from messages import assert_says, refuses

from jaxplm.data.sources import parquet, text_stream
from jaxplm.data.sources.columns import WantedColumns
from jaxplm.data.sources.rows import SourceRows
from jaxplm.data.sources.text_stream import errors_named
from jaxplm.data.sources.texts import open_texts
from jaxplm.errors import UserError

TEXT = WantedColumns({"text": "data.text"}, ("label",))


def file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **options) -> list[str]:
    return list(open_texts(str(path), **options))


ROWS = [f"good {i},pos" if i % 2 else f"bad {i},neg" for i in range(20)]


@pytest.mark.parametrize(("opening", "closing"), [
    ('"never closed,pos', "x,neg"),
    ('"closed in the middle of a later row,pos', 'the 7" single,neg'),
    ('"closed at the end of a later text,pos', 'the 7 inch",neg'),
    ('"closed by the quote that opens a later text,pos', '"a, b",neg'),
])  # fmt: skip
def test_an_open_quote_is_named_by_its_line(tmp_path, opening, closing):
    rows = ["text,label", *ROWS[:5], opening, *ROWS[5:15], closing, *ROWS[15:]]
    with refuses("a.csv", "line 7", "quote", '""', ".tsv"):
        read(file(tmp_path / "a.csv", "\n".join(rows) + "\n"))


def test_an_open_quote_after_a_leading_label(tmp_path):
    rows = ["label,text", "pos,a", "neg,b", 'pos,"open', "neg,c", 'pos,d"', "neg,e"]
    with refuses("a.csv", "line 4", "quote"):
        read(file(tmp_path / "a.csv", "\n".join(rows)))


def test_an_open_quote_in_the_last_line(tmp_path):
    with refuses("a.csv", "line 3", "quote"):
        read(file(tmp_path / "a.csv", 'text,label\na,1\n"b,2'))
    assert read(file(tmp_path / "b.csv", 'text,label\na,1\n"b",2')) == ["a", "b"]


def test_line_ends_between_quotes_stay_text(tmp_path):
    rows = 'label,text\npos,"I like it\nvery much"\nneg,b\nneg,"no, no\n\n""never"""\nneg,"a" b\n'
    assert read(file(tmp_path / "a.csv", rows)) == ["I like it\nvery much", "b", 'no, no\n\n"never"', "a b"]


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", "text,label,text\na,1,b\n"),
    ("a.tsv", "text\tlabel\ttext\na\t1\tb\n"),
    ("a.csv", "label,text,label\n1,a,2\n"),
    ("a.jsonl", '{"text": "a", "text": "b"}\n'),
    ("a.json", '[{"text": "a", "label": 1, "label": 2}]'),
    ("a.json", '{"data": [\n{"text": "a", "text": "b"}]}'),
])  # fmt: skip
def test_two_columns_of_one_name(tmp_path, name, content):
    twice = "label" if content.count("label") == 2 else "text"
    with refuses(name, f"'{twice}'", "2 columns"):
        list(SourceRows(file(tmp_path / name, content), TEXT))


def test_two_columns_of_one_name_in_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with refuses("a.parquet", "'text'", "2 columns"):
        read(path)


def test_columns_that_are_not_read_may_have_one_name(tmp_path):
    assert read(file(tmp_path / "a.csv", "text,,\na,1,2\n")) == ["a"]  # as spreadsheets write them
    assert read(file(tmp_path / "a.jsonl", '{"text": "a", "x": 1, "x": 2}\n')) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize(("name", "beginning", "more"), [
    ("a.jsonl", '{"text": "', "x"), ("a.json", '[{"text": "', "x"), ("a.json", '{"text": "', "x"), ("a.json", "[" * 8 + '"', "x"),
    ("a.json", '{"version": "1", "data": [{"text": "', "x"), ("a.json", '[{"text": 1, "x": [', "1,"), ("a.csv", "text\n", "x"),
    ("a.csv", 'text\n"', "x"), ("a.csv", 'text\n"', "x\n"), ("a.csv", "text\n", ","), ("a.tsv", "text\n", "x"), ("a.conll", "", "x"),
    ("a.conll", "", "x\n"), ("a.json", '{"text": "a"}\n{"text": "', "x"),
])  # fmt: skip
def test_records_without_end_are_refused_before_they_are_read(tmp_path, monkeypatch, name, beginning, more, compression):
    monkeypatch.setattr(text_stream, "MAX_RECORD_CHARS", 1 << 16)
    data = beginning.encode() + more.encode() * ((1 << 24) // len(more))
    path = file(tmp_path / (name + compression), gzip.compress(data, 1) if compression else data)
    tracemalloc.start()
    try:
        with refuses(path.name, "quote" if (beginning, more) == ('text\n"', "x\n") else "65,536"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_json_lines_under_the_name_of_an_array_may_begin_with_a_long_one(tmp_path):
    rows = [{"text": "word " * 300_000}, *({"text": f"row {i}"} for i in range(40))]
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    assert len(read(file(tmp_path / "a.json", lines))) == 41
    assert len(read(file(tmp_path / "b.json", lines.replace("\n", "\n\n")))) == 41


@pytest.mark.parametrize("indent", [None, 1])
def test_documents_are_decoded_article_by_article(tmp_path, monkeypatch, indent):
    monkeypatch.setattr(text_stream, "MAX_RECORD_CHARS", 1 << 16)
    article = {"title": "t", "paragraphs": [{"context": "c " * 4000, "qas": [{"id": "1", "question": "q"}]}]}
    path = file(tmp_path / "a.json", json.dumps({"version": 1.25, "data": [article] * 100, "by": {"n": 12}}, indent=indent))
    assert read(path, text="question", every_row=True) == ["q"] * 100


def test_deep_json(tmp_path, caplog):
    deep = "[" * 100_000
    for name, content in (("a.json", deep), ("a.json", '{"data": ' + deep), ("a.json", '[{"text": ' + deep)):
        with refuses(name, "nested"):
            read(file(tmp_path / name, content))
    texts = open_texts(str(file(tmp_path / "a.jsonl", '{"text": ' + deep + '\n{"text": "a"}\n')))
    assert list(texts) == ["a"] and texts.counts["malformed"] == 1


def test_parquet_with_broken_characters(tmp_path):
    path = tmp_path / "a.parquet"
    good = [b"abc"] * 3000
    values = pa.array([*good, b"\xff\xfe"], pa.binary())
    broken = pa.StringArray.from_buffers(len(values), *values.buffers()[1:])
    pyarrow.parquet.write_table(pa.table({"text": broken}), path)
    with refuses("a.parquet", "row 3001", "utf-8"):
        read(path)


@pytest.mark.slow
def test_long_texts_of_parquet_come_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1 << 22)
    path = tmp_path / "a.parquet"
    texts = [chr(97 + i % 26) * 100_000 for i in range(300)]
    pyarrow.parquet.write_table(pa.table({"text": texts}), path, compression="NONE", use_dictionary=False)
    tracemalloc.start()
    assert sum(map(len, open_texts(str(path)))) == sum(map(len, texts))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


@pytest.mark.slow
@pytest.mark.parametrize("store_schema", [False, True])
def test_one_long_text_of_parquet_a_thousand_times(tmp_path, monkeypatch, store_schema):
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1 << 22)
    path = tmp_path / "a.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * 1_000_000]))
    pyarrow.parquet.write_table(pa.table({"text": column}), path, compression="zstd", dictionary_pagesize_limit=1 << 30,
                                store_schema=store_schema)
    assert path.stat().st_size < 1 << 16
    tracemalloc.start()
    assert sum(map(len, open_texts(str(path)))) == 10**9
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


TOKENS = WantedColumns({"tokens": "data.tokens"})


def deep(levels: int) -> pa.Array:
    kind, value = pa.string(), "a"
    for _ in range(levels):
        kind, value = pa.list_(kind), [value]
    return pa.array([value], kind)


@pytest.mark.parametrize("levels", [33, 60, 1000])
def test_lists_of_parquet_nested_too_deeply(tmp_path, levels):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"tokens": deep(levels)}), path)
    with refuses("a.parquet", *(["'tokens'", "33", "32"] if levels == 33 else ["nested"])):
        list(SourceRows(path, TOKENS))


def test_lists_of_parquet_within_the_depth(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a"], "tokens": deep(20), "other": deep(40)}), path)
    [row] = SourceRows(path, TOKENS)
    assert row["tokens"] == deep(20)[0].as_py()
    assert read(path) == ["a"]


@pytest.mark.parametrize("make", [
    lambda count: pa.array([["a"], ["b"] * count, ["c"]]),
    lambda count: pa.array([["a"], [], ["c"]]) if not count else pa.array([[["a"]], [[]] * count, [["c"]]]),
    lambda count: pa.array([{"x": [1], "y": [2]}, {"x": [1] * (count // 2), "y": [2] * (count // 2)}, None]),
    lambda count: pa.array([[("k", [1])], [("k", [1] * count)], []], pa.map_(pa.string(), pa.list_(pa.int8()))),
    lambda count: pa.array([["a"], ["b" * (count * 64)], ["c"]]),
])
def test_a_row_of_parquet_with_too_many_values(tmp_path, monkeypatch, make):
    """A small file may hold a list of a billion equal values: it is refused before they become Python's."""
    monkeypatch.setattr(parquet, "MAX_RECORD_LINES", 1000)
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 64_000)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"tokens": make(900)}), path)
    assert len(list(SourceRows(path, TOKENS))) == 3
    pyarrow.parquet.write_table(pa.table({"tokens": make(1200)}), path)
    with refuses("a.parquet", "row 2", "tokens", "1,000"):
        list(SourceRows(path, TOKENS))


def test_a_row_group_of_parquet_with_too_many_values(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_MAX_GROUP_VALUES", 1 << 20)
    count = (1 << 20) + 1
    path = tmp_path / "a.parquet"
    lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.int8()))
    pyarrow.parquet.write_table(pa.table({"tokens": lists}), path)
    assert path.stat().st_size < 1 << 16
    with refuses("a.parquet", "row group 1", "'tokens'", f"{count:,}"):
        list(SourceRows(path, TOKENS))


def test_faults_of_the_code_keep_their_traceback(tmp_path):
    def own_fault():
        with errors_named(tmp_path / "a.json"):
            text_stream.remove_unreadable(None)  # type: ignore[arg-type]

    def of_the_package():
        with errors_named(tmp_path / "a.json"):
            WantedColumns({"a": ""}).present(None, "")  # type: ignore[arg-type]

    for fault in (own_fault, of_the_package):
        with pytest.raises((TypeError, AttributeError)):
            fault()
    with refuses("a.json", "row 3", "digits") as caught, errors_named(tmp_path / "a.json", lambda: " after row 3"):
        json.loads("1" * 5000)
    assert isinstance(caught.value, UserError)
    assert_says(str(caught.value), "a.json")
