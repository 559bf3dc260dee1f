"""Files that are read back: each damage is seen, named, and what can be rebuilt is rebuilt."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Lab, make_model
from helpers import sentences, wordpiece
from messages import assert_says, refuses
from transformers import AutoTokenizer

from jaxplm.config import Config
from jaxplm.data import checksums
from jaxplm.data.checksums import Damaged, Records, made_once
from jaxplm.data.corpus.tokenize import tokenize
from jaxplm.data.sources.texts import open_texts
from jaxplm.engine import workdir as workdirs
from jaxplm.recipes.embed.files import VectorFiles
from jaxplm.reporting.metric_log import MetricLog, read_metrics


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_every_bit_counts_also_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "_BLOCK", 16)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(50)))
    whole = checksums.of_file(path)
    seen = {whole}
    for place in range(50):
        flip(path, place)
        seen.add(checksums.of_file(path))
        flip(path, place)
    assert len(seen) == 51
    assert checksums.of_file(path) == whole
    path.write_bytes(bytes(range(50)) + b"\0")
    assert checksums.of_file(path) != whole


def test_a_sealed_object_says_when_it_was_changed():
    content = checksums.sealed({"a": 1, "b": {"c": [1, 2.5]}})
    assert checksums.opened(json.loads(json.dumps(content)), "x") == {"a": 1, "b": {"c": [1, 2.5]}}
    for broken in (content | {"a": 2}, {"a": 1}, [content], None):
        with pytest.raises(Damaged):
            checksums.opened(broken, "x")


def test_json_that_is_nested_too_deeply(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(Damaged, match="deep.json"):
        checksums.read_json(path)


@pytest.mark.parametrize("name", ["tokens.bin", "word_starts.bin", "offsets.bin", "meta.json"])
def test_a_flipped_bit_in_the_token_cache_is_named_and_the_tokens_are_made_again(tmp_path, caplog, name):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece(tmp_path / "model"))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(50)))
    texts = open_texts(str(corpus))
    first = tokenize(texts, tokenizer, tmp_path / "cache")
    want = np.array(first.tokens), np.array(first.word_starts), first.offsets
    [store] = [path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir()]
    random_ = random.Random(0)
    for _ in range(4):
        flip(store / name, random_.randrange(10**6), random_.randrange(8))
        caplog.clear()
        again = tokenize(texts, tokenizer, tmp_path / "cache")
        assert_says(caplog.text, str(store), name)
        for ours, theirs in zip((again.tokens, again.word_starts, again.offsets), want, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    caplog.clear()
    tokenize(texts, tokenizer, tmp_path / "cache")
    assert "damaged" not in caplog.text


def test_what_was_made_once_is_made_again_when_it_is_damaged(tmp_path):
    path, said = tmp_path / "choice" / "tokens.json", []
    makes = iter(["one", "one", "two"])

    def make() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(next(makes))

    def once() -> None:
        made_once(Records(tmp_path), path, make, usable=True, warn=said.append)

    once()
    once()
    assert not said
    flip(path, 0)
    once()
    [line] = said
    assert_says(line, "tokens.json")
    assert path.read_text() == "one"
    flip(path, 0)
    with refuses(str(path)):
        once()


def test_records_of_a_directory(tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        (tmp_path / "d" / name).write_text(name)
    records = Records(tmp_path)
    assert not records.has(tmp_path / "d")
    records.add(tmp_path / "d")
    assert records.has(tmp_path / "d")
    assert not records.has(tmp_path / "dd")
    assert not records.damaged(tmp_path / "d")
    flip(tmp_path / "d" / "a", 0)
    (tmp_path / "d" / "b").unlink()
    assert [damage.split()[0] for damage in records.damaged(tmp_path / "d")] == ["d/a", "d/b"]
    (tmp_path / Records.NAME).write_text("[" * 100_000)
    assert not records.has(tmp_path / "d")


def test_a_flipped_row_of_metrics_is_named(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in range(3):
            log.write(step, "train", {"loss": 0.125 * step})
    path = tmp_path / "metrics.jsonl"
    assert [row["loss"] for row in read_metrics(path)] == [0, 0.125, 0.25]
    path.write_text(path.read_text().replace("0.125", "0.525"))
    with refuses(str(path), "2"):
        read_metrics(path)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"step": "1", "split": "train"}', '{"step": null, "split": "train"}', "{}", ""])
def test_a_line_that_is_no_row(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + '\n{"step": 1, "split": "train"}\n')
    with refuses(str(path), "1"):
        read_metrics(path)


def test_rows_that_are_no_longer_there(tmp_path):
    """They are not the one incomplete line that a kill leaves."""
    with MetricLog(tmp_path) as log:
        log.write(1, "train", {"loss": 1})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\xff\xfe\0")
    with refuses(str(path), "1"):
        read_metrics(path)
    path.unlink()
    with MetricLog(tmp_path, resume_from=1) as log:
        log.write(2, "train", {"loss": 2})
    assert [row["step"] for row in read_metrics(path)] == [2]


def test_a_resumed_metrics_file_keeps_its_checksums(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in range(4):
            log.write(step, "train", {"loss": step})
    with MetricLog(tmp_path, resume_from=2) as log:
        log.write(3, "train", {"loss": 7})
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 7]


@pytest.mark.parametrize("name", ["embeddings-00001.npy", "tokens.npy.partial", "offsets.npy.partial"])
def test_a_flipped_shard_of_an_interrupted_run_is_named_and_not_used(tmp_path, caplog, name):
    def files() -> VectorFiles:
        return VectorFiles(tmp_path, 4, np.dtype(np.float32), 4, "model", by_token=True)

    def add(to: VectorFiles, block: int) -> None:
        counts = {"empty": 0, "truncated": 0}
        to.add(np.full((4, 4), block, np.float32), 2, counts, np.full(4, block, np.int32), np.array([1, 3]))

    first = files()
    for block in range(3):
        add(first, block)
    first.close()
    whole = files()
    whole.close()
    assert whole.rows == 6
    array = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    flip(tmp_path / name, len(array) - 1 if name.startswith("emb") else 128 + 4 * 4 * 2 - 1)  # of the second shard
    caplog.clear()
    resumed = files()
    assert resumed.rows == 2
    assert_says(caplog.text, name.removesuffix(".partial"))
    for block in (1, 2):
        add(resumed, block)
    resumed.finish_arrays()
    assert np.load(tmp_path / "tokens.npy").tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.load(tmp_path / "offsets.npy").tolist() == [0, 1, 4, 5, 8, 9, 12]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b'{"train": ' * 200_000, b"\xff\xfe", b"[1]", b"null", b"7"])
def test_a_damaged_config_of_the_workdir(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with refuses(str(tmp_path / "config.json"), "damaged", "--workdir"):
        workdirs.claim(tmp_path, Config(), write=True)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_flipped_bit_in_the_config_of_the_workdir(tmp_path):
    workdirs.claim(tmp_path, Config(), write=True)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with refuses("seed", "1 → 0", f"{path} is not what was written"):
        workdirs.claim(tmp_path, Config(), write=True)


def export(workdir: Path) -> Path:
    make_model(workdir / "export")
    return workdir / "export"


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("damage", [
    lambda path: (path / "config.json").unlink(),
    lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-10]),
    lambda path: flip(path / "model.safetensors", 0),
])
def test_a_damaged_export_is_not_a_finished_run(tmp_path, caplog, damage, recorded):
    """Without records, as an earlier version left it, what is missing or cut is seen."""
    directory = export(tmp_path)
    if recorded:
        workdirs.record_export(tmp_path)
    damage(directory)
    with refuses(str(tmp_path), "export", "checkpoints"):  # nothing to write it again from
        workdirs.is_finished(tmp_path)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    assert not workdirs.is_finished(tmp_path)
    assert_says(caplog.text, "export")


def test_a_flipped_bit_in_the_weights_is_seen(tmp_path, caplog):
    directory = export(tmp_path)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    assert workdirs.is_finished(tmp_path)  # of an earlier version: recorded now
    flip(directory / "model.safetensors", -1)
    assert not workdirs.is_finished(tmp_path)
    assert_says(caplog.text, "export/model.safetensors")


def test_a_model_card_that_its_user_has_written_is_kept(tmp_path, caplog):
    directory = export(tmp_path)
    (directory / "README.md").write_text("card")
    workdirs.record_export(tmp_path)
    (directory / "README.md").write_text("a better card")
    assert workdirs.is_finished(tmp_path)


@pytest.mark.slow
def test_the_export_is_written_again_from_the_checkpoint(lab: Lab, reference, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(reference.workdir, workdir)
    flip(workdir / "export" / "model.safetensors", 5000)
    (workdir / "export" / "config.json").unlink()
    done = lab.train(workdir)
    assert done.returncode == 0, done.stderr
    assert_says(done.stdout, "export/model.safetensors", "export/config.json")
    for file in (reference.workdir / "export").iterdir():
        if file.name != "README.md":  # names its directory
            assert (workdir / "export" / file.name).read_bytes() == file.read_bytes(), file.name
