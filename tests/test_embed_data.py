"""What embeddings are computed from and written to: every row of the input, in blocks, and .npy files that grow."""

import gzip
import json
from collections.abc import Iterator

import checkpoints
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import assert_line, refuses

from jaxplm.data.checksums import Records
from jaxplm.data.labelled.row_length import row_length
from jaxplm.data.labelled.text_blocks import framing, text_blocks, text_tokens
from jaxplm.data.labelled.unit_rows import plan_units
from jaxplm.data.sources import text_stream
from jaxplm.data.sources.texts import open_texts
from jaxplm.recipes.embed.array_file import ArrayFile
from jaxplm.recipes.embed.files import INDEX, VectorFiles, damaged_files, is_complete

WORDS = sorted(set(" ".join(checkpoints.TEXTS[:3]).split()))


def long_texts(seq_len: int) -> list[str]:
    """Texts far longer than a unit, of several kinds, among short ones."""
    random = np.random.default_rng(0)
    many = " ".join(random.choice(WORDS, 2000))
    return ["the dog", many, "", "a" * 9000, "fox " + " \n" * 6000 + "dog reads", (" " * 400).join(["dog"] * 60), "x y\n" * 3000,
            "the quick " * (seq_len // 2 - 1), "the quick " * (seq_len // 2)]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("seq_len", [8, 33])
def test_ids_are_those_of_the_stock_tokenizer(family, seq_len):
    tokenizer = checkpoints.tokenizer(family)
    texts = [text.strip() for text in long_texts(seq_len)]
    wanted = tokenizer(texts, truncation=True, max_length=seq_len)["input_ids"]
    whole = tokenizer(texts)["input_ids"]
    (block,) = text_blocks(iter(texts), tokenizer, seq_len)
    found = np.split(block.encoded.ids, block.encoded.offsets[1:-1])
    assert [ids.tolist() for ids in found] == wanted
    assert block.encoded.truncated == sum(len(ids) > seq_len for ids in whole)
    assert block.empty == 1 and block.first == 0


def shape_of(blocks) -> list[tuple[int, int]]:
    return [(block.first, len(block.encoded)) for block in blocks]


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=40), edge=st.integers(0, 9), data=st.data())
def test_blocks_resume_from_any_of_their_beginnings(lengths, edge, data):
    tokenizer = checkpoints.tokenizer("bert")
    texts = [("dog fox " * n).strip() for n in lengths]
    bounds = {"max_rows": data.draw(st.integers(1, 12)), "max_chars": data.draw(st.integers(1, 600)), "edge": edge}
    blocks = list(text_blocks(texts, tokenizer, 16, **bounds))
    assert [first for first, _ in shape_of(blocks)] == np.cumsum([0] + [n for _, n in shape_of(blocks)])[:-1].tolist()
    assert sum(n for _, n in shape_of(blocks)) == len(texts)
    if edge:
        assert all(first // edge == (first + n - 1) // edge for first, n in shape_of(blocks))
    chosen = data.draw(st.integers(0, len(blocks) - 1))
    again = list(text_blocks(texts, tokenizer, 16, start=blocks[chosen].first, **bounds))
    assert shape_of(again) == shape_of(blocks[chosen:])
    assert all(np.array_equal(a.encoded.ids, b.encoded.ids) for a, b in zip(again, blocks[chosen:], strict=True))


def test_a_block_is_read_and_no_more():
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "the quick dog " * 400

    blocks = text_blocks(texts(), checkpoints.tokenizer("bert"), 16, max_rows=50, max_chars=1 << 30)
    for number in range(1, 4):
        block = next(blocks)
        assert read == 50 * number
        assert len(block.encoded.ids) == 50 * 16
    # The characters that count are those that can reach a row: 8 a token, and 16 for each text.
    read = 0
    block = next(text_blocks(texts(), checkpoints.tokenizer("bert"), 16, max_rows=1 << 30, max_chars=10 * (8 * 16 + 16)))
    assert len(block.encoded) == read == 10


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tokens_of_the_text_are_those_between_the_special_ones(family):
    tokenizer = checkpoints.tokenizer(family)
    texts = ["the dog", "", f"a {tokenizer.sep_token} fox", "the dog " * 50]
    (block,) = text_blocks(texts, tokenizer, 12)
    inside, sizes = text_tokens(block.encoded, framing(tokenizer))
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"][:10] for text in texts]
    assert block.encoded.ids[inside].tolist() == sum(wanted, [])
    assert sizes.tolist() == list(map(len, wanted))


def fill(lengths: np.ndarray, length: int) -> float:
    return lengths.sum() / (plan_units(lengths, length).rows * length)


def test_rows_are_as_long_as_it_takes_to_fill_them():
    random = np.random.default_rng(0)
    short = random.integers(5, 60, 3000)
    assert row_length(short, 128, 384) == 128
    awkward = random.integers(66, 110, 3000)  # two of them do not fit into a row of 128
    length = row_length(awkward, 128, 384)
    assert length > 128 and length % 16 == 0
    assert fill(awkward, 128) < 0.75 and fill(awkward, length) > 0.9
    assert row_length(np.array([3]), 3, 384) == 32
    assert row_length(np.full(100, 512), 512, 384) == 512


def write(path, text: str):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def test_every_line_is_a_text(tmp_path):
    file = write(tmp_path / "a.txt.gz", "one\n\n two \n   \nthree\n\n")
    texts = open_texts(file, lines="true", every_row=True)
    assert list(texts) == ["one", "", "two", "", "three", ""]
    assert (texts.counts["texts"], texts.counts["empty"]) == (6, 3)
    assert list(open_texts(file, lines="true", every_row=True, max_rows=3)) == ["one", "", "two"]
    assert list(open_texts(file, lines="true")) == ["one", "two", "three"]


def test_a_line_that_is_read_in_pieces_is_one_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text_stream, "MAX_TEXT_CHARS", 4)
    file = write(tmp_path / "a.txt", "abcdefghij\nabc\nabcd\nx")
    assert list(open_texts(file, lines="true", every_row=True)) == ["abcd", "abc", "abcd", "x"]


def test_every_row_of_json_is_a_text_even_an_unreadable_one(tmp_path, caplog):
    rows = ['{"text": "one"}', "{broken", '{"text": ""}', '{"text": null}', '{"other": 1}', '{"text": "\\ud800two"}', "[1]"]
    file = write(tmp_path / "a.jsonl", "\n".join(rows) + "\n")
    texts = open_texts(file, every_row=True)
    assert list(texts) == ["one", "", "", "", "", "two", ""]
    assert_line(caplog.text, str(file), "2", "7", "empty")
    # Rows before the first one with the column keep their places as well.
    late = write(tmp_path / "b.jsonl", "\n".join(['{"other": 1}', "{broken", '{"text": "one"}', "{broken"]))
    assert list(open_texts(late, every_row=True)) == ["", "", "one", ""]
    assert list(open_texts(late)) == ["one"]


def test_every_row_of_squad_is_a_text(tmp_path):
    paragraph = {"context": "the text", "qas": [{"id": str(i), "question": f"q{i}", "answers": []} for i in range(3)]}
    file = write(tmp_path / "a.json", json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    assert list(open_texts(file, text="context", every_row=True)) == ["the text"] * 3
    assert list(open_texts(file, text="context")) == ["the text"]


def test_reading_every_row_is_another_corpus(tmp_path):
    file = write(tmp_path / "a.txt", "one\n\ntwo\n")
    assert open_texts(file).fingerprint != open_texts(file, every_row=True).fingerprint


@pytest.mark.parametrize("shape", [(), (7,), (0,)])
def test_a_growing_file_is_what_numpy_saves(tmp_path, shape):
    rows = np.random.default_rng(0).normal(size=(123, *shape)).astype(np.float32)
    path = tmp_path / "a.npy"
    with ArrayFile(path, shape, np.float32) as file:
        for part in np.split(rows, [0, 50, 51, 100]):
            file.append(part)
        assert not path.exists()
        assert file.finish() == path
    np.save(tmp_path / "b.npy", rows)
    assert path.read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_growing_file_resumes_after_the_rows_that_are_kept(tmp_path):
    rows = np.arange(60, dtype=np.int64).reshape(20, 3)
    with ArrayFile(tmp_path / "a.npy", (3,), np.int64) as file:
        file.append(rows[:9])
        file.append(rows[:5])  # of a part that was never completed
    with ArrayFile(tmp_path / "a.npy", (3,), np.int64, keep=9) as file:
        file.append(rows[9:])
        file.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows)
    with ArrayFile(tmp_path / "b.npy", (3,), np.int64) as file:
        file.append(rows[:2])
    with refuses("3 rows", error=ValueError):
        ArrayFile(tmp_path / "b.npy", (3,), np.int64, keep=3)


def open_files(directory, identity: str = "me") -> VectorFiles:
    return VectorFiles(directory, 2, np.dtype(np.float32), 5, identity, by_token=True)


def add(files: VectorFiles, row: int, sizes: tuple[int, ...]) -> None:
    """Rows of `sizes` vectors; the numbers tell where they belong."""
    tokens = 100 * row + np.arange(sum(sizes), dtype=np.int32)
    files.add(np.stack([tokens, tokens], 1).astype(np.float32), len(sizes), {"empty": 0, "truncated": 1}, tokens, np.array(sizes))


def finish(files: VectorFiles) -> dict[str, bytes]:
    files.finish_arrays()
    files.finish({"model": "m"})
    return {path.name: path.read_bytes() for path in files._directory.iterdir()}


def test_vectors_of_tokens_resume_wherever_they_stopped(tmp_path):
    blocks = [(0, (2, 0, 4)), (3, (1, 1)), (5, (9,)), (6, (2,))]  # shards: the first, the next two, the last
    files = open_files(tmp_path / "whole")
    for row, sizes in blocks:
        add(files, row, sizes)
    whole = finish(files)
    assert np.load(tmp_path / "whole" / "offsets.npy").tolist() == [0, 2, 2, 6, 7, 8, 17, 19]
    assert np.load(tmp_path / "whole" / "tokens.npy").tolist() == [0, 1, 2, 3, 4, 5, 300, 301, *range(500, 509), 600, 601]
    assert [shard["rows"] for shard in files.shards] == [3, 3, 1]
    assert len(whole) == 6

    for stop in range(4):  # inside the second shard, after it, inside the last, and when all arrays were complete
        directory = tmp_path / f"stopped{stop}"
        files = open_files(directory)
        for row, sizes in blocks[: stop + 2]:
            add(files, row, sizes)
        if stop == 3:
            files.finish_arrays()
        files.close()
        assert not is_complete(directory)
        with refuses("weights"):
            open_files(directory, "another")
        files = open_files(directory)
        assert files.rows == [3, 6, 6, 7][stop]
        for row, sizes in blocks:
            if row >= files.rows:
                add(files, row, sizes)
        assert finish(files) == whole, stop
        assert is_complete(directory)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[" * 100_000, b"\xff\xfe", b"[1]", b"null", b"{}", b'{"shards": []}', b'{"shards": [], "rows": "x", "vectors": 0}',
    b'{"shards": [{"file": 1, "sha256": null}], "rows": 0, "vectors": 0}', b'{"shards": {"a": 1}, "rows": 0, "vectors": 0}',
    b'{"shards": [{"file": "embeddings-00000.npy"}], "rows": 0, "vectors": 0}', b'{"shards": [], "rows": true, "vectors": 0}',
])
def test_an_index_without_records_that_is_damaged(tmp_path, content):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / INDEX).write_bytes(content)
    assert damaged_files(tmp_path / "embeddings", Records(tmp_path)) == [f"{INDEX} is not what was written"]


@pytest.mark.parametrize("damage", [
    lambda line: b"[" * 100_000, lambda line: line.replace(b"s", b"z", 1), lambda line: b"\xff" + line[1:], lambda line: b"null",
    lambda line: b'{"record": {}}', lambda line: b"",
])
@pytest.mark.parametrize("number", [1, 2, 3])  # of the line; the last is the third
def test_a_damaged_line_of_the_progress(tmp_path, caplog, damage, number):
    files = open_files(tmp_path)
    for row, sizes in ((0, (2, 4)), (2, (1, 4))):  # two shards
        add(files, row, sizes)
    files.close()
    progress = tmp_path / "progress.jsonl"
    lines = progress.read_bytes().splitlines()
    lines[number - 1] = damage(lines[number - 1])
    progress.write_bytes(b"\n".join([*lines, b""]))
    files = open_files(tmp_path)
    files.close()
    assert files.rows == (0, 0, 2)[number - 1]
    [said] = caplog.messages
    assert_line(said, "progress.jsonl", f"line {number}")
