import gzip
import json
import logging
import pickle

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from messages import assert_line, refuses

from jaxplm.config import Data
from jaxplm.data.sources import hub, plain_text, text_stream
from jaxplm.data.sources.same_files import same_files
from jaxplm.data.sources.texts import open_corpus, open_texts
from jaxplm.errors import UserError


def pack(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".zst":  # two frames, as pzstd writes them
        half = len(data) // 2
        return zstandard.compress(data[:half]) + zstandard.compress(data[half:])
    return data


def read(spec, **options):
    return list(open_texts(str(spec), **options))


PAIRS = [("첫 문장", "a, b"), ('say "hi', "c"), ("셋", "d e")]


def as_format(kind: str, path) -> bytes:
    rows = [{"text": a, "other": b, "label": i} for i, (a, b) in enumerate(PAIRS)]
    if kind == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == ".json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if kind == ".csv":
        return 'text,other,label\n첫 문장,"a, b",0\n"say ""hi",c,1\n셋,d e,2\n'.encode()
    if kind == ".tsv":
        return 'text\tother\tlabel\n첫 문장\ta, b\t0\nsay "hi\tc\t1\n셋\td e\t2\n'.encode()
    return "".join(f"{a}\n" for a, _ in PAIRS).encode()


def test_nan_is_an_empty_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": NaN}\n{"text": "a"}\n{"text": "nan"}\n')
    texts = open_texts(str(path))
    assert list(texts) == ["a", "nan"] and texts.counts["empty"] == 1
    pyarrow.parquet.write_table(pa.table({"text": ["a", None], "n": [1.5, float("nan")]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", text="text", text_pair="n") == ["a\n1.5"]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("crlf_bom", [False, True])
def test_every_format_in_every_packing(tmp_path, kind, compression, crlf_bom):
    data = as_format(kind, tmp_path)
    if crlf_bom:
        data = b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
    path = tmp_path / f"a{kind}{compression}"
    path.write_bytes(pack(data, compression))
    texts = open_texts(str(path))
    assert list(texts) == [a for a, _ in PAIRS]
    assert list(texts) == [a for a, _ in PAIRS]  # a second pass reads it again
    assert texts.files == (path,)
    if kind != ".txt":
        assert read(path, text_pair="other") == [f"{a}\n{b}" for a, b in PAIRS]
        with refuses("'txt'", "'text', 'other', 'label'"):
            read(path, text="txt")


def test_parquet_streams_one_column(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pa.table({"text": [a for a, _ in PAIRS] + [None], "other": [1, 2, 3, 4]}), path
    )
    texts = open_texts(str(path))
    assert list(texts) == [a for a, _ in PAIRS]
    assert texts.counts["empty"] == 1
    with refuses("'body'", "'text', 'other'"):
        read(path, text="body")
    path.write_bytes(path.read_bytes()[:-20])
    with refuses("a.parquet"):
        read(path)


@pytest.mark.parametrize(
    ("data", "auto"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb\n\nc\n", ["a\nb", "c"]),
        ("a\nb\n \t\nc", ["a\nb", "c"]),  # blank to the eye
        ("\n\na\nb\n\n\n", ["a", "b"]),  # blank lines around the text separate nothing
        ("a\r\n\r\nb", ["a", "b"]),
        ("\x0ca\u2028b\n", ["a\u2028b"]),  # only line ends end lines
        ("a\n" * 70 + "\n" + "b\n" * 70, ["a"] * 70 + ["b"] * 70),  # an empty text among many
        (("a\n" * 40 + "\n") * 3, ["\n".join("a" * 40)] * 3),
    ],
)
def test_auto_takes_lines_where_there_is_no_blank_line(tmp_path, data, auto, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes(data.encode())
    with caplog.at_level(logging.INFO, "jaxplm"):
        assert read(path) == auto
    assert caplog.text.count("data.lines=auto") == 1
    lines = [line.strip() for line in data.replace("\r\n", "\n").split("\n") if line.strip()]
    assert read(path, lines="true") == lines
    assert "\n".join(read(path, lines="false")) == "\n".join(lines)
    assert open_texts(str(path)).fingerprint != open_texts(str(path), lines="true").fingerprint


def test_for_one_result_per_row_a_line_is_a_row(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_text("first review\nsecond review\n\nfourth review\nfifth review\n")
    with caplog.at_level(logging.INFO, "jaxplm"):
        assert read(path, every_row=True) == ["first review", "second review", "", "fourth review", "fifth review"]
    assert_line(caplog.text, "data.lines=auto", "line", "row", "a.txt")
    assert read(path, every_row=True, lines="false") == ["first review\nsecond review", "fourth review\nfifth review"]


def test_auto_decides_for_each_file(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("1\n2\n")
    (tmp_path / "b.txt").write_text("1\n2\n\n3\n")
    with caplog.at_level(logging.INFO, "jaxplm"):
        assert read(tmp_path) == ["1", "2", "1\n2", "3"]
    assert_line(caplog.text, "line", "a.txt", "blank lines", "b.txt")


def test_unreadable_bytes_are_skipped_and_counted(tmp_path, caplog):
    for suffix in ("", ".gz", ".zst"):
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(pack(b"good\n\xffbad\xfe\n" + "좋\ufffd은\n".encode() + b"cut\xec\x9e", suffix))
        texts = open_texts(str(path))
        assert list(texts) == ["good", "bad", "좋\ufffd은", "cut"]
        assert texts.counts == {"texts": 4, "undecodable": 2}
    assert_line(caplog.text, "bytes", "2 of 4 texts", "UTF-8")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a\xff"}\n{"text": "b\\ud83d"}\n{"text": "\\ud83d\\ude00"}\n')
    texts = open_texts(str(path))
    assert list(texts) == ["a", "b", "😀"]
    assert texts.counts["undecodable"] == 2
    (tmp_path / "b.txt").write_text("한글\n둘", encoding="utf-16")
    assert read(tmp_path / "b.txt") == ["한글", "둘"]


def test_broken_and_ragged_rows(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": 1}\n{"text": "a"}\nnot json\n[1]\n\n{"text": null}\n'
        '{"text": "b", "new": {"x": 1}}\n{"text": 7}\n'
    )
    texts = open_texts(str(path))
    assert list(texts) == ["a", "b", "7"]
    assert texts.counts == {"texts": 3, "malformed": 2, "empty": 2}
    assert_line(caplog.text, "2 of 7 rows", "parsed")
    (tmp_path / "a.tsv").write_text("id\ttext\n1\ta\n2\n3\tb\tc\n\n4\tNA\n5\tnull\n")
    texts = open_texts(str(tmp_path / "a.tsv"))
    assert list(texts) == ["a", "NA", "null"]  # words, not missing values
    assert texts.counts["malformed"] == 2
    (tmp_path / "b.csv").write_text('text,n\n"two\nlines",1\n' + f'"{"x" * 200_000}",2\n')
    assert [len(text) for text in read(tmp_path / "b.csv")] == [9, 200_000]
    (tmp_path / "c.jsonl").write_text('{"text": ["a", "b"]}\n')
    with refuses("'text'", "lists"):
        read(tmp_path / "c.jsonl")


SQUAD = {
    "version": "1.1",
    "data": [
        {"title": "T", "paragraphs": [
            {"context": "C1", "qas": [{"id": "1", "question": "Q1", "answers": []},
                                      {"id": "2", "question": "Q2"}]},
            {"context": "C2", "qas": [{"id": "3", "question": "Q3", "answers": []}]},
        ]},
    ],
}  # fmt: skip


def test_json_shapes(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(SQUAD, indent=2))
    texts = open_texts(str(path), text="context")
    assert list(texts) == ["C1", "C2"]
    assert texts.counts["repeated"] == 1
    assert read(path, text="question") == ["Q1", "Q2", "Q3"]
    with refuses("'text'", "'id', 'title', 'context', 'question', 'answers'"):
        read(path)
    path.write_text('{"data": [{"text": "a"}, {"text": "b"}]}')
    assert read(path) == ["a", "b"]
    path.write_text('{"text": "a"}\n{"text": "b"}\n')  # JSON lines under the wrong name
    assert read(path) == ["a", "b"]
    path.write_text('{"text": "a"}')
    assert read(path) == ["a"]
    for wrong in (
        '{"a": 1',
        '[{"text": "a"}, ',
        '["a"]',
        '[{"text": "a"}][{"text": "b"}]',
        '{"data": [{"paragraphs": [{}]}]}',
        '{"vocab": {\n"a": 1}}',
    ):
        path.write_text(wrong)
        with refuses("a.json"):
            read(path)


def test_json_array_is_decoded_piece_by_piece(tmp_path):
    rows = [{"text": f"{i} " + "가" * (i % 700)} for i in range(6000)] + [{"text": "x" * 3_000_000}]
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rows, ensure_ascii=False).encode(), 1))
    assert read(path) == [row["text"].strip() for row in rows]


def test_conll(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(
        "-DOCSTART- O\n\n## comment\nSelegiline\tB-Chem\n-\tO\n#\tO\n\n\nEU NNP B-NP B-ORG\nrejects VBZ O O\n"
    )
    assert read(path) == ["Selegiline - #", "EU rejects"]
    path.write_text("경\tB-OG\n찰\tI-OG\n \tO\n은\tO\n")  # characters as tokens, spaces among them
    assert read(path) == ["경찰 은"]


def test_globs_directories_and_lists_are_sorted_and_without_doubles(tmp_path, caplog):
    for name in ("b.txt", "a.txt", "sub/c.jsonl", "README.md", ".hidden/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}) if name.endswith("l") else name)
    assert read(tmp_path) == ["a.txt", "b.txt", "sub/c.jsonl"]
    assert read(f"{tmp_path}/*.txt") == ["a.txt", "b.txt"]
    assert read(f"{tmp_path}/**/*.jsonl") == ["sub/c.jsonl"]
    assert read(f"{tmp_path}/b.txt, {tmp_path}/*.txt") == ["b.txt", "a.txt"]
    (tmp_path / "x,y.txt").write_text("comma")
    assert read(tmp_path / "x,y.txt") == ["comma"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    (tmp_path / "train.txt").write_text("1")
    (tmp_path / "test.txt").write_text("2")
    read(tmp_path)
    assert_line(caplog.text, "train", "test")


def test_fingerprint_follows_content_not_names(tmp_path):
    for name, content in (("a.txt", "x"), ("b.txt", "x"), ("c.txt", "y"), ("d.jsonl", "x")):
        (tmp_path / name).write_text(content)
    a, b, c, d = (
        open_texts(str(tmp_path / name)).fingerprint for name in ("a.txt", "b.txt", "c.txt", "d.jsonl")
    )
    assert a == b
    assert len({a, c, d}) == 3
    assert open_texts(str(tmp_path / "a.txt"), max_rows=1).fingerprint != a
    (tmp_path / "a.txt").write_text("longer")
    assert open_texts(str(tmp_path / "a.txt")).fingerprint != a


def test_max_rows_counts_texts(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("4\n5\n")
    assert read(tmp_path, max_rows=4) == ["1", "2", "3", "4"]
    with pytest.raises(UserError, match="max_rows"):
        open_texts(str(tmp_path), max_rows=0)


def test_wrong_inputs_are_one_line(tmp_path):
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "empty.txt").write_text(" \n\n\t\n")
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n{"text": ""}\n')
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(["a"]))
    (tmp_path / "pickle.txt").write_bytes(pickle.dumps(["a"]))
    (tmp_path / "packed.txt").write_bytes(gzip.compress(b"a"))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"abc\n" * 1000)[:-9])
    (tmp_path / "plain.txt.gz").write_bytes(b"abc")
    (tmp_path / "plain.txt.zst").write_bytes(b"abc" + zstandard.compress(b"abc"))
    (tmp_path / "cut.txt.zst").write_bytes(zstandard.compress(b"abc\n" * 1000)[:-3])
    (tmp_path / "appended.txt.zst").write_bytes(zstandard.compress(b"abc\n") + zstandard.compress(b"abc\n" * 1000)[:-3])
    (tmp_path / "notes.docx").write_bytes(b"PK")
    (tmp_path / "sub").mkdir()
    cases = {
        "trian.txt": ("trian.txt", "train.txt"),
        "subb/x.txt": ("subb/x.txt", "sub"),
        "quite-other.csv": ("quite-other.csv",),
        "*.csv": ("*.csv",),
        "sub": ("sub", ".txt"),
        "empty.txt": ("empty.txt",),
        "empty.jsonl": ("empty.jsonl", "2 empty"),
        "data.pkl": ("data.pkl", ".pkl", "code"),
        "pickle.txt": ("pickle.txt", "pickle"),
        "packed.txt": ("packed.txt", "binary data"),
        "cut.txt.gz": ("cut.txt.gz",),
        "plain.txt.gz": ("plain.txt.gz",),
        "plain.txt.zst": ("plain.txt.zst",),
        "cut.txt.zst": ("cut.txt.zst", "Truncated"),
        "appended.txt.zst": ("appended.txt.zst", "Truncated"),
        "notes.docx": ("notes.docx", ".txt", ".jsonl"),
    }
    for name, said in cases.items():
        with refuses(*said):
            read(tmp_path / name)
    for spec in ("", " , "):
        with refuses("data"):
            open_texts(spec)
    with refuses("data.lines='maybe'", "auto", "true", "false"):
        open_texts(str(tmp_path / "train.txt"), lines="maybe")
    with refuses("file"):  # longer than any file name may be
        open_texts(",".join(f"{tmp_path}/{i}.txt" for i in range(2000)))


def test_endless_lines_and_paragraphs_are_cut(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(text_stream, "MAX_TEXT_CHARS", 10)
    (tmp_path / "a.txt").write_text("1234567890abc\nxyz\n")
    assert read(tmp_path / "a.txt", lines="true") == ["1234567890", "abc", "xyz"]
    (tmp_path / "b.txt").write_text("12345\n67\n89\n\nx")
    assert read(tmp_path / "b.txt") == ["12345\n67", "89", "x"]
    assert_line(caplog.text, "10 characters", "cut", "1")


def test_paragraphs_keep_every_character():
    import io

    text = "a b\nc\n\n\n  d\n\t\ne"
    assert list(plain_text.read_paragraphs(io.StringIO(text), list)) == ["a b\nc\n", "  d\n", "e"]


def test_same_files(tmp_path):
    for name, content in (("train.jsonl", b"x" * 9), ("copy.jsonl", b"x" * 9), ("test.jsonl", b"y" * 9)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "test.jsonl")
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(b"y" * 9))
    train, test = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
    assert same_files(train, test) == []
    assert same_files(train, str(tmp_path / "copy.jsonl")) == [train]
    assert same_files(f"{tmp_path}/link.jsonl,{train}", test) == [f"{tmp_path}/link.jsonl"]
    assert same_files(f"{tmp_path}/test.jsonl.gz", test) == [f"{tmp_path}/test.jsonl.gz"]
    assert len(same_files(str(tmp_path), test)) == 3
    assert same_files("builtin:pydocs,hf:imdb", test) == []


class FakeHub:
    """A hub with one data set; the streams are real `datasets` streams."""

    def __init__(self, monkeypatch):
        import huggingface_hub

        fake = self

        class Api:
            def dataset_info(self, name, timeout):
                assert timeout <= 10
                if name != "films":
                    raise ConnectionError("no route to host\nsecond line")
                return type("Info", (), {"sha": "abc"})

        def load_dataset(name, config, *, split, revision, streaming):
            assert (name, revision, streaming) == ("films", "abc", True)
            if split != "train":
                raise ValueError(f'Bad split: {split}. Available splits: ["train"]')
            return fake.data.to_iterable_dataset()

        self.data = datasets.Dataset.from_dict({"text": ["a", " ", "b"], "label": [0, 1, 0]})
        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(
            hub, "quiet_datasets", lambda: type("Datasets", (), {"load_dataset": load_dataset})
        )


def test_hub_names(monkeypatch):
    FakeHub(monkeypatch)
    texts = open_texts("hf:films")
    assert list(texts) == ["a", "b"]
    assert texts.files == ()
    assert texts.fingerprint != open_texts("hf:films", split="validation").fingerprint
    with refuses("'review'", "'text', 'label'"):
        read("hf:films", text="review")
    with refuses("hf:films", "'validation'", "splits"):
        read("hf:films", split="validation")
    with refuses("hf:imdb", "ConnectionError: no route to host"):
        open_texts("hf:imdb")


def test_hub_offline_fails_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # in case the client was not imported yet
    with refuses("hf:imdb", "reached"):
        open_texts("hf:imdb")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "*.txt"])
def test_a_second_column_of_plain_text_is_refused(tmp_path, name):
    data = Data(text_pair="other")
    path = tmp_path / ("a.txt" if "*" in name else name)
    path.write_bytes(pack(b"one\ntwo\n", ".gz" if name.endswith(".gz") else ""))
    with refuses("data.text_pair", "'other'", ".jsonl"):
        open_corpus(data, str(tmp_path / name))
    assert list(open_corpus(Data(text_pair="other", general=str(path)), str(path)))  # general text may be without it
    assert list(open_corpus(Data(), str(path)))
