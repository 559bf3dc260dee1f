"""The recipe `embed` by the real command: what it writes, stopped, killed and resumed, and each mistake."""

import hashlib
import json
import re
import shutil
import signal
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from commands import fields, succeeded, tree
from helpers import sentences
from messages import assert_line, assert_refusal, assert_says

import jaxplm

pytestmark = pytest.mark.slow

ROWS = 1500
SHARD = 20

RESUMED = r"\bafter row [\d,]+$"  # what a resumed command says


@pytest.fixture(scope="module")
def corpus(lab) -> Path:
    """Sentences with an empty line here and there, and one that is too long."""
    lines = sentences(ROWS, seed=3)
    lines[7] = lines[ROWS - 1] = ""
    lines[11] = "the cat sat on " * 30
    file = lab.root / "rows.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def flags(lab, corpus: Path, workdir: Path, **more) -> list[str]:
    settings = {"model__path": lab.model, "data__train": corpus, "data__lines": "true", "data__seq_len": 32, "train__batch_size": 8,
                "embed__shard_rows": SHARD, "compute__dtype": "float32"} | more
    return ["--config=configs/embed.py", f"--workdir={workdir}", *fields(**settings)]


def vectors(workdir: Path) -> np.ndarray:
    index = json.loads((workdir / "embeddings" / "index.json").read_text())
    return np.concatenate([np.load(workdir / "embeddings" / shard["file"]) for shard in index["shards"]])


def contents(workdir: Path) -> dict[str, bytes]:
    """Every file of the vectors and of the export."""
    return {f"{folder}/{name}": content for folder in ("embeddings", "export") if (workdir / folder).exists()
            for name, (_, content) in tree(workdir / folder).items() if name != "README.md"}  # the card holds the command


@pytest.fixture(scope="module")
def finished(lab, corpus) -> tuple[Path, str]:
    workdir = lab.root / "vectors"
    return workdir, succeeded(lab.run(flags(lab, corpus, workdir)))


def test_row_i_of_the_shards_is_line_i_of_the_input(lab, corpus, finished):
    workdir, out = finished
    texts = corpus.read_text().split("\n")[:-1]
    found = vectors(workdir)
    assert found.shape == (ROWS, 32) and found.dtype == np.float32
    wanted = jaxplm.embed(texts, str(lab.model), seq_len=32, compute="float32")
    assert np.abs(found - wanted).max() <= 1e-5
    index = json.loads((workdir / "embeddings" / "index.json").read_text())
    told = {"pooling": "mean", "layers": "last", "normalize": False, "dtype": "float32", "width": 32, "rows": ROWS, "vectors": ROWS,
            "empty": 2, "truncated": 1}
    assert {name: index[name] for name in told} == told
    assert index["version"] == jaxplm.__version__ and index["model"] == str(lab.model) and len(index["fingerprint"]) == 64
    assert [shard["file"] for shard in index["shards"]] == [f"embeddings-{i:05}.npy" for i in range(ROWS // SHARD)]
    assert [shard["first_row"] for shard in index["shards"]] == list(range(0, ROWS, SHARD))
    for shard in index["shards"]:
        assert hashlib.sha256((workdir / "embeddings" / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]
    assert {path.name for path in (workdir / "embeddings").iterdir()} == {"index.json", *(shard["file"] for shard in index["shards"])}
    assert_line(out, "warning", "rows.txt", f"2 of {ROWS:,} rows", "text")
    assert_line(out, "warning", "rows.txt", f"1 of {ROWS:,} rows", "data.seq_len=32", "cut")
    assert_line(out, "sentence-transformers", f"{workdir}/export")
    assert (workdir / "export" / "modules.json").is_file()


def test_a_finished_run_says_so_and_does_nothing(lab, corpus, finished):
    workdir, _ = finished
    before = tree(workdir)
    out = succeeded(lab.run(flags(lab, corpus, workdir)))
    assert len(out.splitlines()) == 1
    assert_says(out, str(workdir), "finished", f"{ROWS:,} vectors", f"{ROWS:,} rows")
    assert tree(workdir) == before


def test_another_config_in_the_same_workdir_is_refused(lab, corpus, finished):
    done = lab.run(flags(lab, corpus, finished[0], embed__pooling="cls"))
    assert done.returncode == 2
    assert_refusal(done.stderr, "embed.pooling", "mean → cls", "--workdir")


def stopped(lab, command: list[str], number: signal.Signals, *, resumed: bool = False) -> int:
    """Send the signal after a shard or two; return the row that the command said it resumed after."""
    with lab.started(command) as process:
        after = process.wait_for(RESUMED).rsplit(" ", 1)[1] if resumed else "0"
        process.wait_for(r"^embeddings-\d+\.npy")
        status, _, err = process.stop(number)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], err
    if number != signal.SIGKILL:
        assert_refusal(err, "stopped", "rows", "saved", "command")
    return int(after.replace(",", ""))


@pytest.mark.parametrize("pooling, times, signals", [
    ("mean", 1, (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)), ("none", 16, (signal.SIGKILL, signal.SIGTERM)),
])
def test_killed_or_stopped_and_resumed_the_files_are_the_same(lab, corpus, finished, tmp_path, pooling, times, signals):
    """One signal after the other, then to the end. Without pooling a shard is a block of thousands of rows at least."""
    reference = finished[0]
    more = {"embed__pooling": pooling}
    if times > 1:
        longer = tmp_path / "longer.txt"
        longer.write_text(corpus.read_text() * times)
        reference, corpus = tmp_path / "reference", longer
        succeeded(lab.run(flags(lab, corpus, reference, **more)))
    workdir = tmp_path / "run"
    command = flags(lab, corpus, workdir, **more)
    at = [stopped(lab, command, number, resumed=i > 0) for i, number in enumerate(signals)]
    assert at == sorted(set(at))
    assert not (workdir / "embeddings" / "index.json").exists()
    assert re.search(RESUMED, succeeded(lab.run(command)), re.M)
    found, wanted = contents(workdir), contents(reference)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_a_shard_that_is_gone_is_made_again(lab, corpus, finished, tmp_path):
    workdir = tmp_path / "run"
    command = flags(lab, corpus, workdir)
    stopped(lab, command, signal.SIGTERM)
    (workdir / "embeddings" / "embeddings-00000.npy").unlink()
    assert not re.search(RESUMED, succeeded(lab.run(command)), re.M)
    assert contents(workdir) == contents(finished[0])


def test_a_run_is_not_resumed_with_other_weights_under_the_same_path(lab, corpus, tmp_path):
    model = shutil.copytree(lab.model, tmp_path / "model")
    command = flags(lab, corpus, tmp_path / "run", model__path=model)
    stopped(lab, command, signal.SIGTERM)
    checkpoints.rewrite(model, lambda tensors: {name: tensor * 1.001 for name, tensor in tensors.items()})
    done = lab.run(command)
    assert done.returncode == 2
    assert_refusal(done.stderr, str(tmp_path / "run"), "weights", "tokenizer", "--workdir")


def test_vectors_of_tokens(lab, corpus, tmp_path):
    out = succeeded(lab.run(flags(lab, corpus, tmp_path / "run", embed__pooling="none", embed__shard_rows=4000)))
    folder = tmp_path / "run" / "embeddings"
    offsets, tokens, found = np.load(folder / "offsets.npy"), np.load(folder / "tokens.npy"), vectors(tmp_path / "run")
    module, tokenizer = jaxplm.load(str(lab.model))
    texts = corpus.read_text().split("\n")[:-1]
    assert (offsets.dtype, offsets.shape) == (np.int64, (ROWS + 1,))
    assert tokens.dtype == np.int32 and len(tokens) == len(found) == offsets[-1]
    for i in (0, 6, 7, 8, 11, 500, ROWS - 1):
        inputs = tokenizer(texts[i].strip(), truncation=True, max_length=32, return_tensors="np")
        hidden = np.asarray(module.hidden_states(inputs["input_ids"], inputs["attention_mask"]))[0, 1:-1]  # without [CLS], [SEP]
        here = slice(offsets[i], offsets[i + 1])
        assert np.array_equal(tokens[here], inputs["input_ids"][0, 1:-1])
        assert found[here].shape == hidden.shape and np.abs(found[here] - hidden).max(initial=0) <= 1e-5
    assert_line(out, "no export", "sentence-transformers")
    assert not (tmp_path / "run" / "export").exists()


def test_settings_reach_the_files(lab, corpus, tmp_path):
    settings = {"embed__pooling": "max", "embed__mix": "(1.,0.,3.)", "embed__normalize": "true", "embed__dtype": "float16",
                "embed__shard_rows": 65536, "data__max_rows": 50}
    out = succeeded(lab.run(flags(lab, corpus, tmp_path / "run", **settings)))
    found = vectors(tmp_path / "run")
    assert found.dtype == np.float16 and found.shape == (50, 32)
    assert np.abs(np.linalg.norm(found.astype(np.float32), axis=1) - 1).max() < 2e-3
    texts = corpus.read_text().split("\n")[:50]
    wanted = jaxplm.embed(texts, str(lab.model), pooling="max", mix=(1.0, 0.0, 3.0), normalize=True, seq_len=32, compute="float32")
    assert np.abs(found - wanted).max() < 1e-3
    index = json.loads((tmp_path / "run" / "embeddings" / "index.json").read_text())
    assert index["mix"] == [1, 0, 3] and "layers" not in index and index["normalize"] is True
    assert_line(out, "no export", "sentence-transformers")


@pytest.mark.parametrize("more, said", [
    ({"embed__layers": "top"}, ("embed.layers='top'", "last", "last4", "mean", "number")),
    ({"embed__layers": 3}, ("embed.layers=3", "0", "2", "-1")),
    ({"embed__mix": "(1.,)"}, ("embed.mix", "1", "3")),
    ({"data__train": ""}, ("data.train", "empty")),
    ({"data__train": "nothing.txt"}, ("nothing.txt",)),
    ({"data__seq_len": 64}, ("data.seq_len=64", "40")),
    ({"model__path": ""}, ("model",)),
    ({"embed__pooling": "sum"}, ("embed.pooling='sum'", "cls", "mean", "max", "none")),
])
def test_mistakes(lab, corpus, tmp_path, more, said):
    done = lab.run(flags(lab, corpus, tmp_path / "run", **more))
    assert done.returncode == 2, done.stderr
    assert_refusal(done.stderr, *said)
    assert not (tmp_path / "run" / "embeddings").exists()


def test_a_damaged_index_is_named_and_the_vectors_are_computed_again(lab, tmp_path):
    """With the checksums of the workdir and, as an earlier version left it, without."""
    few = tmp_path / "few.txt"
    few.write_text("\n".join(sentences(2 * SHARD)) + "\n")
    command = flags(lab, few, tmp_path / "run")
    succeeded(lab.run(command))
    wanted, records = contents(tmp_path / "run"), tmp_path / "run" / ".checksums.json"
    for content, recorded in ((b"[" * 100_000, True), (wanted["embeddings/index.json"].replace(b'"rows"', b'"r0ws"', 1), False)):
        (tmp_path / "run" / "embeddings" / "index.json").write_bytes(content)
        if not recorded:
            records.unlink()
        out = succeeded(lab.run(command))
        assert_line(out, "warning", str(tmp_path / "run"), "index.json", "damaged")
        assert contents(tmp_path / "run") == wanted
        assert records.is_file()


def test_a_damaged_line_of_the_progress_is_named(lab, corpus, finished, tmp_path):
    """What it and the lines after it record is computed again."""
    workdir = tmp_path / "run"
    command = flags(lab, corpus, workdir)
    stopped(lab, command, signal.SIGTERM)
    progress = workdir / "embeddings" / "progress.jsonl"
    first, _, *others = progress.read_bytes().splitlines()
    progress.write_bytes(b"\n".join([first, b"[" * 100_000, *others, b""]))
    assert_line(succeeded(lab.run(command)), "warning", "progress.jsonl", "line 2")
    assert contents(workdir) == contents(finished[0])
